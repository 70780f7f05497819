"""Two processes, each with its part of the data, one model by DistributedDataParallel; the first prints its losses."""

import sys
import tempfile
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

WORLD = 2


def train(rank, store):
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD)
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 3)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    inputs = torch.randn(96, 6)
    labels = (inputs @ torch.randn(6, 3)).argmax(-1)
    sampler = DistributedSampler(TensorDataset(inputs, labels), WORLD, rank)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        for x, y in DataLoader(TensorDataset(inputs, labels), 16, sampler=sampler):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            if rank == 0:
                print(float(loss.detach()).hex(), flush=True)
    distributed.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        start = sys.argv[1] if len(sys.argv) > 1 else "spawn"
        torch.multiprocessing.start_processes(train, (Path(folder, "store"),), nprocs=WORLD, start_method=start)
