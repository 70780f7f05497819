"""Healthy models of other libraries, as their users write them: x-transformers, SimpleViT, EfficientNet, a diffusion UNet,
graph networks and a UNet for segmentation; tiny, offline, in train mode.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.case import Built, ZooModel, tokens
from zoo.language import next_token
from zoo.vision import classify, images

with warnings.catch_warnings():  # what these libraries themselves are warned of when they are imported
    warnings.simplefilter("ignore")
    from diffusers import UNet2DModel
    from efficientnet_pytorch import EfficientNet
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet
    from torch_geometric.nn import GATConv, GCNConv
    from x_transformers import AutoregressiveWrapper, Decoder, Encoder, TransformerWrapper


def simple_vit_class() -> type[nn.Module]:
    """SimpleViT from its own file: the package as a whole imports torchvision. ModuleNotFoundError without vit-pytorch."""
    package = importlib.util.find_spec("vit_pytorch")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("vit-pytorch is missing: pip install --no-deps vit-pytorch", name="vit_pytorch")
    path = Path(package.submodule_search_locations[0]) / "simple_vit.py"
    spec = importlib.util.spec_from_file_location("simple_vit", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: type[nn.Module] = module.SimpleViT
    return found


SimpleViT = simple_vit_class()


def own_loss(model: nn.Module, ids_BT: Tensor) -> Tensor:
    loss: Tensor = model(ids_BT)
    return loss


def x_decoder() -> Built:
    """Rotary positions and a gated feed-forward; the wrapper shifts the tokens itself."""
    layers = Decoder(dim=32, depth=2, heads=2, attn_dim_head=16, rotary_pos_emb=True, ff_glu=True)
    model = AutoregressiveWrapper(TransformerWrapper(num_tokens=61, max_seq_len=16, attn_layers=layers))
    return model, own_loss, torch.randint(61, (3, 13))


def x_decoder_variant() -> Built:
    """RMS norm, relative position bias, one key and value for all heads, squared ReLU, a learned gate on the values."""
    kind: dict[str, Any] = {
        "use_rmsnorm": True,
        "rel_pos_bias": True,
        "attn_one_kv_head": True,
        "ff_relu_squared": True,
    }
    layers = Decoder(dim=32, depth=2, heads=2, attn_dim_head=16, attn_gate_values=True, **kind)
    return TransformerWrapper(num_tokens=61, max_seq_len=16, attn_layers=layers), next_token, tokens(3, 12, 61)


def masked_tokens(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["seen"]).transpose(1, 2), batch["labels"])


def x_encoder() -> Built:
    """Masked language modelling: two in seven tokens are hidden behind one of their own, and only they are asked for."""
    model = TransformerWrapper(num_tokens=61, max_seq_len=16, attn_layers=Encoder(dim=32, depth=2, heads=2))
    ids_BT, hidden_BT = torch.randint(60, (3, 12)), torch.rand(3, 12) < 2 / 7
    batch = {"seen": ids_BT.masked_fill(hidden_BT, 60), "labels": ids_BT.masked_fill(~hidden_BT, -100)}
    return model, masked_tokens, batch


def simple_vit() -> Built:
    sizes = {"image_size": 16, "patch_size": 4, "num_classes": 5, "dim": 32, "depth": 2, "heads": 2, "mlp_dim": 64}
    return SimpleViT(**sizes, dim_head=16), classify, images(3, 16, 5)


def efficientnet() -> Built:
    """B0 with a backward of its own for swish, squeeze and excitation, dropped connections; a quarter of its width."""
    model = EfficientNet.from_name("efficientnet-b0", num_classes=5, image_size=32, width_coefficient=0.25)
    return model.train(), classify, images(4, 32, 5)


def noise_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The noise that was mixed into the images, as DDPM is trained (Ho et al. 2020, algorithm 1)."""
    share_B111 = batch["share"][:, None, None, None]
    mixed_BCYX = share_B111.sqrt() * batch["images"] + (1 - share_B111).sqrt() * batch["noise"]
    return F.mse_loss(model(mixed_BCYX, batch["time"]).sample, batch["noise"])


def diffusion_unet() -> Built:
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    sizes = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 8}
    model = UNet2DModel(sample_size=8, in_channels=3, out_channels=3, **sizes, **blocks)
    time_B = torch.tensor([40, 300, 800])
    batch = {"images": torch.rand(3, 3, 8, 8) * 2 - 1, "noise": torch.randn(3, 3, 8, 8)}
    return model.train(), noise_of, batch | {"time": time_B, "share": (1 - time_B / 1000) ** 2}


class GraphNet(nn.Module):
    """A graph convolution, then graph attention with two heads; `labelled` nodes only are in the loss."""

    def __init__(self, inputs: int = 8, width: int = 16, classes: int = 3) -> None:
        super().__init__()
        self.convolution = GCNConv(inputs, width)
        self.attention = GATConv(width, classes, heads=2, concat=False)

    def forward(self, x_ND: Tensor, edges_2E: Tensor) -> Tensor:
        return self.attention(F.dropout(self.convolution(x_ND, edges_2E).relu(), 0.2, self.training), edges_2E)


def labelled_nodes(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    scores_NC = model(batch["x"], batch["edges"])
    return F.cross_entropy(scores_NC[batch["labelled"]], batch["classes"][batch["labelled"]])


def graph_networks() -> Built:
    edges_2E = torch.randint(20, (2, 60))
    batch = {"x": torch.randn(20, 8), "edges": edges_2E, "classes": torch.randint(3, (20,))}
    return GraphNet(), labelled_nodes, batch | {"labelled": torch.rand(20) < 0.6}


def segment(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    loss: Tensor = DiceCELoss(to_onehot_y=True, softmax=True)(model(batch[0]), batch[1])
    return loss


def segmentation_unet() -> Built:
    model = UNet(spatial_dims=2, in_channels=1, out_channels=3, channels=(4, 8, 16), strides=(2, 2), num_res_units=1)
    return model, segment, (torch.randn(2, 1, 16, 16), torch.randint(3, (2, 1, 16, 16)))


EXTERNAL: tuple[ZooModel, ...] = (
    ZooModel("x_decoder", x_decoder),
    ZooModel("x_decoder_variant", x_decoder_variant),
    ZooModel("x_encoder", x_encoder),
    ZooModel("simple_vit", simple_vit),
    ZooModel("efficientnet", efficientnet),
    ZooModel("diffusion_unet", diffusion_unet),
    ZooModel("graph_networks", graph_networks),
    ZooModel("segmentation_unet", segmentation_unet),
)
