"""The residual networks of He et al. (2016, arXiv 1512.03385, section 4.2) for images of 32 x 32 pixels.

ResNet-8, 20, 32, 56, 110: of depth 6n + 2, a 3 x 3 convolution, three stages of n blocks with 16, 32 and 64 channels,
the mean over the map, a linear map to the classes. torchvision's and timm's networks of the same names are those for
ImageNet (another stem, four stages, other widths). Where a stage halves the map, the shortcut takes every second pixel
and fills up with zero channels (the paper's option A, without parameters); weights are drawn as in He et al. 2015.

A *layer* of kdexp is a block here, so ResNet-8 has 3 and ResNet-110 has 54. Features for objectives are outputs of
named modules: ``module:{block}.sum`` a block's output before its last ReLU, ``module:resnet.pool`` the pooled map.

Legend: B images, C channels, H height, W width of a map.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers import initialization as draw
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

from kdexp.models.families.cifar_resnet import STAGES, places


class CifarResNetConfig(PreTrainedConfig):
    """What decides one of these networks.

    Args:
        num_hidden_layers: blocks, a multiple of three; ResNet-(2k + 2) has k.
        hidden_size: channels of the last stage; the two before have a quarter and a half.
        image_size: side of the images.
    """

    model_type = "cifar_resnet"

    def __init__(self, num_hidden_layers: int = 9, hidden_size: int = 64, image_size: int = 32, **kwargs: Any) -> None:
        self.num_hidden_layers, self.hidden_size, self.image_size = num_hidden_layers, hidden_size, image_size
        self.num_attention_heads = 1  # there are none; width and depth are asked together with them
        super().__init__(**kwargs)


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation, and a shortcut around them.

    Args:
        before, channels: of its input and output.
        stride: 2 halves the map.
    """

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.sum = nn.Identity()  # a name for the output before the last ReLU
        self.stride, self.more = stride, channels - before

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, channels, H / stride, W / stride)."""
        inner = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        shortcut = x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride]
        if self.more:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        summed: Tensor = self.sum(inner + shortcut)
        return summed.relu()


class CifarResNet(nn.Module):
    """Everything below the classifier: images (B, 3, H, W) to one vector each (B, C)."""

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        channels = [width // 2 ** (STAGES - 1 - stage) for stage, _ in places(blocks)]
        self.conv = nn.Conv2d(3, channels[0], 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels[0])
        self.blocks = nn.ModuleList(
            Block(before, after, 2 if stage and first else 1)
            for before, after, (stage, first) in zip([channels[0], *channels], channels, places(blocks), strict=False)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean of the last map over its pixels."""
        x = self.bn(self.conv(images)).relu()
        for block in self.blocks:
            x = block(x)
        pooled: Tensor = self.pool(x)
        return pooled.flatten(1)


class CifarResNetForImageClassification(PreTrainedModel):
    """A network of the family with its classifier, as transformers saves and loads it."""

    config_class = CifarResNetConfig
    base_model_prefix = "resnet"
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(self, config: CifarResNetConfig) -> None:
        super().__init__(config)
        self.resnet = CifarResNet(config.num_hidden_layers, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Draw a module's first weights: normal, with a variance of 2 / inputs; normalisations begin as identities."""
        if isinstance(module, nn.Conv2d | nn.Linear):
            draw.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.Linear):
            draw.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            draw.ones_(module.weight)
            draw.zeros_(module.bias)
            draw.zeros_(module.running_mean)
            draw.ones_(module.running_var)
            draw.zeros_(module.num_batches_tracked)

    def get_input_embeddings(self) -> nn.Module:
        """Return the first layer that images meet, as those of transformers that read images do."""
        return self.resnet.conv

    def forward(self, pixel_values: Tensor, **ignored: Any) -> ImageClassifierOutputWithNoAttention:
        """Return logits (B, classes) of images (B, 3, H, W)."""
        return ImageClassifierOutputWithNoAttention(logits=self.classifier(self.resnet(pixel_values)))


AutoConfig.register(CifarResNetConfig.model_type, CifarResNetConfig)
AutoModelForImageClassification.register(CifarResNetConfig, CifarResNetForImageClassification)
