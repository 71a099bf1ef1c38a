"""Scenario of the demo: its phases, their rates, and the texts that are posted.

Six phases share the available seconds, so that five seconds have the same sequence as two minutes. `PhaseRates` says
how many messages the load offers in a phase; the broker decides which of them it shows.

Pure: no clock, no clients; the random source is the argument ``rng``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

__all__ = ["GIFTS", "PHASES", "Gift", "Phase", "PhaseRates", "ScheduledPhase", "Texts", "plan", "viewer_name"]


class PhaseRates(NamedTuple):
    """Messages that the load offers a second."""

    chat_per_viewer: float = 0.0
    """Danmaku of each viewer that is no flooder."""
    trending_share: float = 0.0
    """Share of them that are one of the texts that many viewers post at the same time."""
    flood_per_viewer: float = 0.0
    """Danmaku of the flooders, divided by the number of all viewers."""
    likes_per_viewer: float = 0.0
    gifts: float = 0.0
    """Orders that the platform posts, for all viewers together."""


class Phase(NamedTuple):
    """One phase; ``share``: its part of the demo's seconds."""

    name: str
    title: str
    share: float
    rates: PhaseRates


PHASES: tuple[Phase, ...] = (
    Phase("quiet", "a quiet room", 0.10, PhaseRates(0.06, 0.1, 0.0, 0.1, 0.3)),
    Phase("flood", "chat flood", 0.28, PhaseRates(0.8, 0.7, 6.0, 0.3, 0.5)),
    Phase("gifts", "gift storm", 0.22, PhaseRates(0.3, 0.5, 1.0, 1.0, 50.0)),
    Phase("stalled", "one viewer stalls", 0.16, PhaseRates(0.4, 0.5, 1.0, 0.3, 1.0)),
    Phase("wave", "a third is cut and comes back", 0.14, PhaseRates(0.3, 0.4, 0.5, 0.3, 0.5)),
    Phase("finale", "finale", 0.10, PhaseRates(0.5, 0.8, 0.0, 2.0, 1.0)),
)
"""At 300 viewers the flood offers 2,000 danmaku a second, ten times what the room admits and a hundred times what a
person can read; the gift orders are five times what the room shows a second, so combos form."""


class ScheduledPhase(NamedTuple):
    """A phase with its begin and end, in seconds from the start."""

    phase: Phase
    begins_s: float
    ends_s: float


def plan(seconds: float, phases: Sequence[Phase] = PHASES) -> tuple[ScheduledPhase, ...]:
    """Return the phases one after another, without a gap, from 0 to ``seconds`` (> 0, else ValueError)."""
    if not seconds > 0:
        raise ValueError(f"the demo must last longer than 0 s, not {seconds!r}")
    whole = sum(phase.share for phase in phases)
    ends = [sum(phase.share for phase in phases[: index + 1]) / whole * seconds for index in range(len(phases))]
    ends[-1] = seconds
    return tuple(
        ScheduledPhase(phase, begins_s, ends_s)
        for phase, begins_s, ends_s in zip(phases, [0.0, *ends], ends, strict=False)
    )


# ---- texts

TRENDING: tuple[str, ...] = (
    "求链接", "上链接上链接", "已下单", "多少钱呀", "还有货吗", "冲冲冲", "主播声音好好听", "哈哈哈哈哈", "太划算了吧",
    "来了来了", "讲一下这个", "第一次来", "666", "好看好看", "手慢无", "抢到了", "没抢到再来点", "家人们冲",
)  # fmt: skip
PLAIN_TEXTS: tuple[str, ...] = (
    "刚下班就赶来了", "这个颜色绝了", "上次买的已经用完了", "客服能回一下吗", "包邮吗", "可以用券吗",
    "什么时候发货", "孩子特别喜欢", "主播今天状态真好", "妈妈也在看", "想要小一号的", "质量怎么样有人买过吗",
    "这价格我先买为敬", "给我留一件", "背景音乐叫什么", "晚上好呀大家", "灯光好温柔", "比超市便宜一半",
    "已经回购三次了", "能开发票吗", "看看背面", "转一圈看看", "和图片一样吗", "敏感肌能用吗",
    "南方包邮北方呢", "主播喝口水吧", "运费险有吗", "新人报到", "刚刚那个再讲讲", "镜头近一点",
)  # fmt: skip
PATTERNS: tuple[str, ...] = (
    "我要{n}件", "{n}号链接讲一下", "身高一米六{d}穿什么码", "第{n}次来看直播了", "还差{n}个人到一万",
    "倒数{d}", "蹲{n}号", "刚拍了{d}单", "库存只剩{n}了", "报名{n}号", "{n}块能买吗", "等了{n}分钟",
)  # fmt: skip
FLOODS: tuple[str, ...] = ("加我看主页{n}", "最低价找我{n}", "刷屏{n}", "{n}{n}{n}", "看我看我{n}")

ANNOUNCEMENTS: tuple[str, ...] = (
    "欢迎来到直播间,今晚全场包邮",
    "最后一轮抽奖马上开始,点亮小红心参与",
    "感谢大家,明晚八点再见!",
)
HOST_LINES: tuple[str, ...] = ("谢谢大家来", "点点关注不迷路", "这款真的只有今天这个价")

_ADJECTIVES = (
    "晚风 柠檬 小满 橘子 星河 奶油 半糖 青柠 山茶 初雪 薄荷 麦芽 云朵 海盐 桂花 蜜桃 夏至 芝士 杏仁 松果".split()
)
_NOUNS = "小鹿 同学 阿喵 汽水 先生 妹妹 大王 兔子 星星 企鹅 老师 船长 姐姐 团子 饼干 猫咪 豆豆 鲸鱼 蘑菇 太太".split()


class Gift(NamedTuple):
    """One kind of gift; ``price_cents`` is the unit price."""

    gift_id: str
    price_cents: int


GIFTS: tuple[Gift, ...] = (
    Gift("玫瑰", 100),
    Gift("小心心", 10),
    Gift("棒棒糖", 990),
    Gift("跑车", 28_800),
    Gift("火箭", 50_000),
)


def viewer_name(index: int) -> str:
    """Return the user id and name of viewer ``index``, different for each."""
    size = len(_ADJECTIVES)
    name = _ADJECTIVES[index % size] + _NOUNS[(index // size + index) % len(_NOUNS)]
    return f"{name}{index}"


class Texts:
    """Generator of texts. The trending texts change every `TRENDING_S` seconds, for all viewers at once."""

    TRENDING_S = 2.0
    TRENDING_AT_ONCE = 4

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def trending(self, at_s: float) -> tuple[str, ...]:
        """Return the trending texts ``at_s`` seconds after the start; they do not depend on the random source."""
        first = int(at_s / self.TRENDING_S) * self.TRENDING_AT_ONCE
        return tuple(TRENDING[(first + k) % len(TRENDING)] for k in range(self.TRENDING_AT_ONCE))

    def next(self, at_s: float, trending_share: float) -> str:
        """Return a danmaku of a viewer that is no flooder."""
        rng = self._rng
        if rng.random() < trending_share:
            # The first is the most frequent, as in a real chat.
            trending = self.trending(at_s)
            return trending[min(int(rng.expovariate(1.2)), len(trending) - 1)]
        if rng.random() < 0.4:
            return rng.choice(PLAIN_TEXTS)
        return self._fill(rng.choice(PATTERNS))

    def flood(self) -> str:
        """Return a danmaku of a flooder. Texts differ, so that more than the duplicate rule has to limit it."""
        return self._fill(self._rng.choice(FLOODS))

    def gift(self) -> tuple[Gift, int]:
        """Return a gift and its count; cheap gifts are frequent and have higher counts."""
        rng = self._rng
        index = bisect_right((0.55, 0.80, 0.93, 0.98), rng.random())
        gift = GIFTS[index]
        return gift, rng.choice((1, 1, 1, 5, 10)) if index < 2 else 1

    def _fill(self, pattern: str) -> str:
        return pattern.replace("{n}", str(self._rng.randrange(1, 1000))).replace("{d}", str(self._rng.randrange(10)))
