"""The kinds of activities that the demo plays."""

from broker.demo.features.audiences import AudienceFeature
from broker.demo.features.base import DemoFeature
from broker.demo.features.coupons import CouponFeature
from broker.demo.features.gifts import GiftFeature
from broker.demo.features.lotteries import LotteryFeature
from broker.demo.features.mic import MicFeature
from broker.demo.features.packets import PacketFeature, RainFeature
from broker.demo.features.pk import PkFeature
from broker.demo.features.polls import PollFeature
from broker.demo.features.products import ProductFeature
from broker.demo.features.sales import SaleFeature
from broker.demo.features.schedules import ScheduleFeature

__all__ = ["FEATURES"]

FEATURES: tuple[type[DemoFeature], ...] = (
    ProductFeature,
    GiftFeature,
    SaleFeature,
    PacketFeature,
    RainFeature,
    CouponFeature,
    LotteryFeature,
    PollFeature,
    MicFeature,
    PkFeature,
    ScheduleFeature,
    AudienceFeature,
)
