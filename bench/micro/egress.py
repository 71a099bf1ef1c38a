"""Bytes on the wire: a shown danmaku and a delivered event by codec, beside JSON plain, with gzip and with brotli.

The texts are those below, which were written for this bench and not for the dictionary, or every second distinct line
of the file that ``ROOMCAST_BENCH_TEXTS`` names; its other lines train the dictionary of the row ``trained``. Sizes are
those of TCP without the packet's own 40 to 52 bytes; a WebSocket has 2 to 4 bytes more a tick.
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import random
import time
from collections.abc import Callable, Sequence
from math import ceil

from bench.micro.result import Result
from broker.config.files import read_text_of
from broker.core.net.dictionary_training import MIN_TEXTS, train
from protocol.codes import Codec, Lane, MessageType
from protocol.compression import BUILT_IN_ONLY, compress
from protocol.connection import Encoding, encode
from protocol.frames import build_frame, pack_body
from protocol.message_rules import opcode_of
from protocol.messages import Event, Tick, TickEntry
from protocol.payloads import GiftPayload
from protocol.ticks import account_of

__all__ = ["egress"]

AT_MS = 1_796_000_000_123
TICK_MS = 100
RATE = 20
"""Danmaku a second."""
MSS = 1448
"""Bytes of one packet of Ethernet beside the headers of IP and TCP with timestamps."""
GOAL_BYTES = 52.0
"""With real comments."""
TRAINED_BYTES = 48 * 1024

TEXTS: tuple[str, ...] = (
    "这件外套配什么鞋子合适", "刚下班就赶过来看了", "上次买的杯子到了很喜欢", "主播今天换发型了吗",
    "背景那盏灯在哪买的", "我家猫也想要这个垫子", "请问礼盒可以写贺卡吗", "颜色跟图片差得多不多",
    "昨天那款还会再上吗", "手机拿近一些看不清字", "给妈妈买的她说很暖和", "两百以内有推荐的吗", "这个锅能用电磁炉吗",
    "等了一个小时终于轮到我", "麻烦把袖口翻过来看一下", "洗过三次还是跟新的一样", "能不能送到学校门口",
    "有没有适合圆脸的帽子", "我妈说太花了不让买", "你们仓库在哪个城市", "下周出差正好用得上", "这首歌叫什么名字呀",
    "旁边那位小哥笑得好开心", "评论区的朋友们吃饭了吗", "第二排左边那件是多少", "可以先看看里面的标签吗",
    "我想给爸爸挑一双布鞋", "昨晚没睡好今天来放松", "网速慢得像在看照片", "刚才说的编号再念一次",
    "这种天气穿会不会热", "孩子吵着要那个小恐龙", "一箱里面有几种口味", "要是有紫色我马上付钱", "上个月的奖品收到啦",
    "哪位姐妹穿过说说感受", "声音忽大忽小的", "想看一下装进包里的样子", "送给同事当生日礼物", "这款跟去年那款差在哪",
    "现在下单周五前能到吗", "我站着看的腿都酸了", "主播讲得真仔细", "换了个角度好看多了", "楼上说得有道理",
    "it runs small so size up", "can you hold it next to the window", "my sister has the same one",
    "watching from the train", "is the strap adjustable", "that lamp in the back is lovely",
    "mine arrived yesterday, works fine", "how heavy is it",
)  # fmt: skip
NICKS = ("晚星 阿杰 橘子 南风 老周 豆沙 北岸 米粒 云朵 七七 木木 大山 青柠 小满 阿宁 石头 安然 可乐 初夏 小北").split()


def egress(smoke: bool) -> list[Result]:
    """Measure all codecs, one, two and twenty danmaku to a tick, and a gift."""
    held, others, source = _texts()
    rng = random.Random(5)
    people = [(str(rng.randrange(10**7, 10**8)), f"{rng.choice(NICKS)}{rng.randrange(10_000)}") for _ in range(2000)]
    dictionaries = dict(BUILT_IN_ONLY)
    codecs = {"plain": Codec.PLAIN, "lz4": Codec.LZ4, "dictionary": Codec.LZ4_DICT_1}
    if len(others) > 100 * MIN_TEXTS:
        dictionaries[Codec.LZ4_DICT_2] = train(others, TRAINED_BYTES).data
        codecs["trained"] = Codec.LZ4_DICT_2
    results = []
    for count in (1, 2, 20):
        ticks = _ticks(held, people, count, 60 if smoke else 600, rng)
        plain = _mean([len(_frame(tick, Codec.PLAIN, dictionaries)) for tick in ticks]) / count
        for name, codec in codecs.items():
            frames = [_frame(tick, codec, dictionaries) for tick in ticks]
            size = _mean([len(each) for each in frames]) / count
            detail = {"texts": source}
            goal = GOAL_BYTES if (name, count, bool(others)) == ("dictionary", 2, True) else None
            figure = f"shown danmaku, {count} a tick, {name}"
            results.append(Result("egress", figure, size, "bytes", goal, True, plain, "plain", detail=detail))
            packets = _mean([ceil(len(each) / MSS) for each in frames]) * RATE / count
            figure = f"packets a second and viewer at {RATE} danmaku a second, {count} a tick, {name}"
            results.append(Result("egress", figure, packets, "packets"))
            figure = f"CPU of a tick of {count}, once for all its viewers, {name}"
            results.append(Result("egress", figure, _us(codec, dictionaries, ticks), "us"))
        for name, shrink in _text_codecs().items():
            size = _mean([len(shrink(encode(tick, 3, 9, Lane.CHAT, Encoding.JSON))) for tick in ticks]) / count
            figure = f"shown danmaku, {count} a tick, {name}"
            results.append(
                Result("egress", figure, size, "bytes", None, True, plain, "plain", detail={"texts": source})
            )
    gifts = [_gift(*rng.choice(people), rng) for _ in range(100)]
    plain = _mean([len(_frame(gift, Codec.PLAIN, dictionaries)) for gift in gifts])
    for name, codec in codecs.items():
        size = _mean([len(_frame(gift, codec, dictionaries)) for gift in gifts])
        results.append(Result("egress", f"delivered gift, {name}", size, "bytes", None, True, plain, "plain"))
    return results


def _texts() -> tuple[list[str], list[str], str]:
    """Return the texts to measure with, those to train with, and where they come from."""
    name = os.environ.get("ROOMCAST_BENCH_TEXTS")
    if name is None:
        return list(TEXTS), [], "of the bench"
    lines = list(dict.fromkeys(filter(None, read_text_of(name).split("\n"))))
    return lines[1::2], lines[::2], "every second distinct line of a file"


def _ticks(
    texts: Sequence[str], people: Sequence[tuple[str, str]], count: int, ticks: int, rng: random.Random
) -> list[Tick]:
    shuffled = list(texts)
    rng.shuffle(shuffled)
    found = []
    for number in range(ticks):
        entries = tuple(
            TickEntry(1, *rng.choice(people), (shuffled[(number * count + place) % len(shuffled)],))
            for place in range(count)
        )
        found.append(Tick(AT_MS + number * TICK_MS, TICK_MS, 0, entries, account_of(entries)))
    return found


def _gift(user: str, name: str, rng: random.Random) -> Event:
    payload = GiftPayload(f"order-{rng.randrange(10**9)}", user, name, "rose", 1, 100)
    return Event(MessageType.GIFT, AT_MS, user, name, payload)


def _frame(message: Tick | Event, codec: Codec, dictionaries: dict[int, bytes]) -> bytes:
    body = pack_body(message)
    small = compress(body, codec, dictionaries, is_tick=type(message) is Tick)
    opcode, lane = opcode_of(message), Lane.CHAT if type(message) is Tick else Lane.PAID
    return build_frame(opcode, lane, 3, 9, body if small is None else small, codec if small else Codec.PLAIN)


def _text_codecs() -> dict[str, Callable[[bytes], bytes]]:
    found: dict[str, Callable[[bytes], bytes]] = {
        "JSON": lambda text: text,
        "JSON with gzip": lambda text: gzip.compress(text, 6, mtime=0),
    }
    if importlib.util.find_spec("brotli") is not None:
        import brotli

        found["JSON with brotli"] = lambda text: brotli.compress(text, quality=5)
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _us(codec: Codec, dictionaries: dict[int, bytes], ticks: Sequence[Tick]) -> float:
    """Return the microseconds of CPU in which a tick is packed and compressed, the best of three rounds."""
    best = 1.0
    for _ in range(3):
        start = time.process_time()
        for tick in ticks:
            _frame(tick, codec, dictionaries)
        best = min(best, (time.process_time() - start) / len(ticks))
    return best * 1e6
