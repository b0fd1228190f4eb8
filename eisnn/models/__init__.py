"""Networks, one class for each architecture, built of any kind of layer."""

from eisnn.models.mlp import MLP
from eisnn.models.network import Carry, SpikingNetwork
from eisnn.models.registry import MODELS, create_model, list_models
from eisnn.models.resnet import SEWBlock, SEWResNet
from eisnn.models.transformer import TRANSFORMERS, SpikingTransformer
from eisnn.models.vgg import PLANS, VGG

__all__ = [
    "MLP",
    "MODELS",
    "PLANS",
    "TRANSFORMERS",
    "VGG",
    "Carry",
    "SEWBlock",
    "SEWResNet",
    "SpikingNetwork",
    "SpikingTransformer",
    "create_model",
    "list_models",
]
