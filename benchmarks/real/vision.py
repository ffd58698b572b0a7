"""Networks on images: ResNet-18, a vision transformer, and a U-Net."""

import torch
from torch import Tensor, nn

from benchmarks.real.language import Block
from benchmarks.real.task import Entry, Task, classify, squares
from functorch_ext import replace_all_batch_norm_modules_


def norm(channels: int) -> nn.Module:
    """Of groups: a batch norm mixes the samples."""
    return nn.GroupNorm(min(8, channels), channels)


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """Without a bias, as a norm follows."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


class Residual(nn.Module):
    """Two convolutions, added to the input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.norm1 = conv(inputs, outputs, 3, stride), norm(outputs)
        self.second, self.norm2 = conv(outputs, outputs), norm(outputs)
        straight = stride == 1 and inputs == outputs
        self.short = nn.Identity() if straight else conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.first(x)).relu()
        return (self.short(x) + self.norm2(self.second(y))).relu()


class ResNet18(nn.Module):
    """The ResNet of He et al. (2016) for small images: 11 million parameters."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 64), norm(64), nn.ReLU())
        widths = (64, 64, 64, 128, 128, 256, 256, 512, 512)
        strides = (1, 1, 2, 1, 2, 1, 2, 1)
        blocks = [Residual(*sizes) for sizes in zip(widths, widths[1:], strides)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(512, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


class ViT(nn.Module):
    """A vision transformer with 4x4 patches: Dosovitskiy et al. (2021), but tiny."""

    def __init__(self, width: int = 192, depth: int = 6, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.places = nn.Parameter(torch.randn(64, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, 3, causal=False) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(tokens)).mean(1))


class UNet(nn.Module):
    """Down, across and up again by transposed convolutions: Ronneberger et al. (2015)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()

        def stage(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(conv(inputs, outputs), norm(outputs), nn.ReLU())

        self.down1, self.down2 = stage(3, width), stage(width, 2 * width)
        self.across = stage(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.join2, self.join1 = stage(4 * width, 2 * width), stage(2 * width, width)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        one = self.down1(images)
        two = self.down2(nn.functional.max_pool2d(one, 2))
        three = self.across(nn.functional.max_pool2d(two, 2))
        two = self.join2(torch.cat([two, self.up2(three)], 1))
        return self.head(self.join1(torch.cat([one, self.up1(two)], 1)))


def _images(model: nn.Module, samples: int) -> Task:
    labels = torch.randint(10, (samples,))
    return Task(model, (torch.randn(samples, 3, 32, 32),), labels, classify)


def _replaced() -> nn.Module:
    """Batch norms, made fit for a transform: without running statistics."""
    model = ResNet18()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.BatchNorm2d(child.num_channels))
    return replace_all_batch_norm_modules_(model)


def _segmented(samples: int) -> Task:
    images, masks = torch.randn(samples, 3, 32, 32), torch.randn(samples, 1, 32, 32)
    return Task(UNet(), (images,), masks, squares)


ENTRIES = [
    Entry("ResNet-18 with GroupNorm, 32x32", lambda n: _images(ResNet18(), n), 4, 128),
    Entry("ResNet-18 with replaced BatchNorm, 32x32", lambda n: _images(_replaced(), n), 4, 128),
    Entry("ViT, 6 layers of 192, 64 patches", lambda n: _images(ViT(), n), 8, 256),
    Entry("U-Net, 32x32", _segmented, 8, 256),
]
