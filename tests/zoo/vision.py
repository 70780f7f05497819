"""Healthy image models: ViT, residual and plain networks with batch norm in train mode, U-Net, autoencoders.

B batch, C channels, Y rows, X columns, T patches, D model
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from zoo.case import Built


class ViT(nn.Module):
    def __init__(self, size: int = 12, patch: int = 4, width: int = 24, classes: int = 7) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, patch, stride=patch)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 48, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, image_BCYX: Tensor) -> Tensor:
        x_BTD = self.patch(image_BCYX).flatten(2).transpose(1, 2)
        x_BTD = torch.cat((self.token.expand(x_BTD.shape[0], -1, -1), x_BTD), dim=1) + self.position
        return self.head(self.norm(self.encoder(x_BTD))[:, 0])


def classify(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def images(batch: int, size: int, classes: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 3, size, size), torch.randint(classes, (batch,))


def vit() -> Built:
    return ViT(), classify, images(3, 12, 7)


class Residual(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outer)
        short = (nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
        self.short = nn.Sequential(*short) if stride > 1 else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        y_BCYX = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x_BCYX)))))
        y_BCYX += self.short(x_BCYX)
        return self.relu(y_BCYX)


def resnet() -> Built:
    """Batch norm in train mode, in-place ReLU and addition, as in torchvision."""
    stem = (nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    body = (Residual(8, 8, 1), Residual(8, 16, 2), Residual(16, 24, 2))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 7))
    return nn.Sequential(*stem, *body, *head), classify, images(4, 12, 7)


def batch_norm_cnn() -> Built:
    """A bias before batch norm, whose gradient is zero within rounding; max-pool; dropout."""
    first = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(0.2))
    second = (nn.Conv2d(8, 12, 3, groups=2), nn.BatchNorm2d(12), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten())
    head = (nn.Linear(12, 16), nn.BatchNorm1d(16), nn.Hardswish(), nn.Dropout(0.3), nn.Linear(16, 5))
    return nn.Sequential(*first, *second, *head), classify, images(6, 10, 5)


class UNet(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.norm = nn.GroupNorm(4, 2 * width)
        self.middle = nn.Conv2d(2 * width, 2 * width, 3, padding=2, dilation=2, padding_mode="reflect")
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.wide = nn.Upsample(scale_factor=2, mode="nearest")
        self.leave = nn.Conv2d(4 * width, 1, 1)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        skip_BCYX = F.leaky_relu(self.enter(x_BCYX), 0.1)
        low_BCYX = F.mish(self.norm(self.down(skip_BCYX)))
        low_BCYX = low_BCYX + F.instance_norm(self.middle(low_BCYX))
        return self.leave(torch.cat((skip_BCYX, self.up(low_BCYX), self.wide(low_BCYX)), dim=1))


def dice_and_bce(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    logits, mask = model(batch["image"]), batch["mask"]
    chance = logits.sigmoid()
    overlap = 2 * (chance * mask).sum((1, 2, 3)) / (chance.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + 1)
    return F.binary_cross_entropy_with_logits(logits, mask) + (1 - overlap).mean()


def unet() -> Built:
    mask = (torch.rand(2, 1, 8, 8) > 0.6).float()
    return UNet(), dice_and_bce, {"image": torch.randn(2, 3, 8, 8), "mask": mask}


def reconstruct(model: nn.Module, x_BD: Tensor) -> Tensor:
    return F.huber_loss(model(x_BD), x_BD, delta=0.7)


def autoencoder() -> Built:
    encoder = (nn.Linear(20, 12), nn.ELU(), nn.Linear(12, 4), nn.Softplus())
    decoder = (nn.Linear(4, 12), nn.LeakyReLU(0.2), nn.Linear(12, 20), nn.Hardtanh(-2.0, 2.0))
    return nn.Sequential(*encoder, *decoder), reconstruct, torch.randn(6, 20)


class VAE(nn.Module):
    """Gaussian posterior by reparametrisation (Kingma and Welling 2014)."""

    def __init__(self, inputs: int = 24, latent: int = 3) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, 16), nn.Tanh())
        self.mean, self.log_variance = nn.Linear(16, latent), nn.Linear(16, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, 16), nn.SELU(), nn.Linear(16, inputs))

    def forward(self, x_BD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.encoder(x_BD)
        mean, log_variance = self.mean(h), self.log_variance(h).clamp(-6, 6)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return self.decoder(z), mean, log_variance


def evidence(model: nn.Module, x_BD: Tensor) -> Tensor:
    logits, mean, log_variance = model(x_BD)
    fit = F.binary_cross_entropy_with_logits(logits, x_BD, reduction="sum")
    return (fit - 0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())) / x_BD.shape[0]


def vae() -> Built:
    return VAE(), evidence, torch.rand(5, 24).round()


class VQVAE(nn.Module):
    """Nearest code with a straight-through gradient written with detach (van den Oord et al. 2017)."""

    def __init__(self, inputs: int = 12, width: int = 6, codes: int = 8) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(inputs, width), nn.Linear(width, inputs)
        self.codes = nn.Parameter(torch.randn(codes, width))

    def forward(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x_BD)
        nearest = torch.cdist(z.detach(), self.codes.detach()).argmin(-1)
        code = self.codes[nearest]
        commitment = F.mse_loss(z, code.detach()) * 0.25 + F.mse_loss(code, z.detach())
        return self.decoder(z + (code - z).detach()), commitment


def quantised(model: nn.Module, x_BD: Tensor) -> Tensor:
    y_BD, commitment = model(x_BD)
    return F.l1_loss(y_BD, x_BD) + commitment


def vq_vae() -> Built:
    return VQVAE(), quantised, torch.randn(7, 12)


def normed_weights() -> Built:
    """weight_norm and spectral_norm: parameters behind parametrisations, and a power iteration in every forward."""
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Conv2d(3, 6, 3)),
        nn.ReLU6(),
        parametrizations.spectral_norm(nn.Conv2d(6, 6, 3, stride=2)),
        nn.Flatten(),
        nn.LeakyReLU(),
        parametrizations.spectral_norm(nn.Linear(24, 10)),
        nn.Tanh(),
        parametrizations.weight_norm(nn.Linear(10, 1)),
    )
    return model, hinge, (torch.randn(4, 3, 7, 7), torch.tensor([1.0, -1.0, 1.0, 1.0]))


def hinge(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.relu(1 - model(batch[0]).squeeze(1) * batch[1]).mean()
