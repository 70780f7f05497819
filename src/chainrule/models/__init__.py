"""Plain torch modules that chainrule trains: a Transformer language model and a multi-layer perceptron."""

from chainrule.models.mlp import MLP as MLP
from chainrule.models.transformer import Transformer as Transformer
from chainrule.models.transformer import next_token_loss as next_token_loss
