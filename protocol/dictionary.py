"""Dictionary 1 of the lz4 codec: what live rooms say all the time, commonest last.

The text is ours: short reactions, questions and shop talk as they are typed in live commerce, with the
msgpack bytes that stand around them in a tick. It must never change under its number; an improved one gets
a new codec id. lz4 finds matches cheaper near the end, so the commonest pieces stand there.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DICTIONARY_1"]

_WORDS = (
    "announcement system reconnect welcome product discount coupon lottery red packet flash sale order "
    "shipping size color stock price gift rocket rose heart crown castle balloon sportscar "
    "尺码偏大吗 身高体重多少 有没有小码 建议拍什么码 面料是什么的 会不会起球 会掉色吗 可以机洗吗 "
    "什么时候发货 发什么快递 偏远地区包邮吗 有运费险吗 七天无理由 退换货麻烦吗 保质期多久 敏感肌能用吗 "
    "孕妇可以用吗 小孩能吃吗 是正品吗 有优惠券吗 怎么领券 券在哪里 满减怎么算 能便宜点吗 性价比高 "
    "再讲一遍 链接在哪 几号链接 上链接 小黄车 已拍 已下单 抢到了 没抢到 手慢了 秒没 还有库存吗 补货 "
    "红包 福袋 抽奖 中奖 开始了吗 倒计时 三二一 主播好美 主播辛苦了 声音好听 支持主播 关注了 来了来了 "
    "第一次来 老粉报到 晚上好 大家好 欢迎 谢谢 太好看了 好喜欢 想要 心动了 绝了 爱了爱了 冲冲冲 "
    "哈哈哈哈哈哈 666666 88888 11111 ？？？ ！！！ 加油加油 多少钱 怎么买 价格 好看 可以 "
).encode()

_FRAMING = b"".join(
    b"\x96" + kind + b"\xa8user-" + digits + b"\xa7viewer " + b"\x91" + length
    for kind, digits, length in (
        (b"\x01", b"000", b"\xa6"), (b"\x02", b"123", b"\xa9"), (b"\x01", b"456", b"\xac"),
        (b"\x01", b"789", b"\xaf"), (b"\x01", b"100", b"\xb2"),
    )
)  # fmt: skip

DICTIONARY_1: Final[bytes] = _WORDS + _FRAMING + b"\x01\x90\x96\x01\xa8user-0\x91\xc0\x01\x90"
