"""Two processes that train one model by DistributedDataParallel; with the word `converted` it is converted after wrapping.

Prints for each rank a number that is the same on all ranks if the model is.
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

WORLD = 2


def train(rank, store):
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD)
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(6, 32), nn.GELU(), nn.Linear(32, 3)))
    if sys.argv[1:] == ["converted"]:
        model.double()
        model.float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    torch.manual_seed(rank)
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.randn(16, 6)), torch.randint(3, (16,))).backward()
        optimizer.step()
    total = sum(float(parameter.detach().sum()) for parameter in model.parameters())
    print(f"sum {total.hex()}\n", end="", flush=True)  # in one piece: both ranks write
    distributed.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(train, (Path(folder, "store"),), nprocs=WORLD, start_method="fork")
