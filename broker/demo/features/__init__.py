"""The kinds of activities that the demo plays."""

from broker.demo.features.base import DemoFeature
from broker.demo.features.sales import SaleFeature

__all__ = ["FEATURES"]

FEATURES: tuple[type[DemoFeature], ...] = (SaleFeature,)
