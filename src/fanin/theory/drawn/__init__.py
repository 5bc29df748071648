"""Running softmaxes on drawn channels: their parts are tied in more ways than laws remember."""

from fanin.theory.drawn.channels import Channels as Channels
from fanin.theory.drawn.regions import regions as regions
