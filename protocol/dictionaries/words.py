"""The words of the built-in dictionary: what people write in live rooms and shops, and common words of Chinese.

They were written for this project. The common words are those that stand in many comments, whatever these are about;
no text of anybody is among them.
"""

from __future__ import annotations

__all__ = ["CHAT", "COMMON", "ENGLISH", "NAMES", "RECORDS", "SHOPPING", "SIGNS"]

CHAT = """\
来了来了 我来了 刚来 刚进来 第一次来 老粉报到 打卡签到 前排围观 路过支持一下 大家好 主播好 主播晚上好 早上好 中午好
下午好 晚上好 晚安 拜拜 再见 下次再来 明天还播吗 几点开播 几点下播 播到几点 每天都来 天天都在 终于等到你 好久不见
欢迎新来的 欢迎大家 点个关注 关注主播不迷路 已关注 关注了 加粉丝团 加入会员 灯牌点亮 谢谢支持 感谢大哥 感谢家人们
家人们 宝子们 姐妹们 兄弟们 老铁们 各位 有人吗 我在 在的 还在 听得到 听不见 声音太小了 声音有点小 画面卡 卡了 卡住了
好卡 不卡 重新进 黑屏了 延迟 高清 网络不好 我这边 主播看看我 看我看我 翻我牌子 念一下我的名字 主播理理我 带带我
连麦吗 可以连麦吗 下麦 上麦 换人 唱首歌 唱一首 再来一首 好听 好好听 太好听了 声音真好听 跳个舞 跳舞 再来一遍 求歌名
什么歌 这首歌叫什么 点歌 哈哈哈哈哈哈哈哈哈哈 嘻嘻嘻 呵呵 嘿嘿 呜呜呜呜 啊啊啊啊啊啊 哇哇哇 哇塞 我的天 天哪 我去
不会吧 真的吗 真的假的 是真的 假的吧 太假了 笑死我了 笑死 笑不活了 绝了 绝绝子 太绝了 牛啊 太牛了 厉害了 太厉害了
好厉害 可以的 可以啊 不错不错 真不错 挺好的 太好了 好棒 真棒 好美 太美了 好漂亮 好可爱 太可爱了 好帅 帅气 好看
真好看 太好看了 超级好看 美女 小姐姐 小哥哥 姐姐 哥哥 爱了爱了 爱你 我爱了 喜欢喜欢 好喜欢 心动了 羡慕 羡慕了 酸了
慕了 感动 泪目 想哭 心疼 加油加油 加油 冲冲冲 冲啊 支持支持 支持主播 辛苦了 主播辛苦了 稳了 赢了 输了 再来一局
打得好 漂亮 好球 进了 开团 上分 单排 队友 对面 什么情况 怎么回事 发生什么了 看不懂 没看懂 学到了 学会了 懂了 明白了
知道了 好的好的 好的呢 没错 对对对 对的 是的是的 不是吧 不行不行 不要啊 算了吧 随便 无所谓 没关系 没事 没问题 不客气
谢谢 谢谢主播 谢谢老板 恭喜恭喜 恭喜发财 生日快乐 新年快乐 节日快乐 祝大家 身体健康 万事如意 好运 接好运 沾沾喜气
许愿 保佑我 转发 分享了 点赞 双击 点点赞 刷起来 走一波 扣一 扣1 打在公屏上 公屏 弹幕 刷屏 禁言 房管 管理 举报 别骂了
别吵了 理性 带节奏 黑粉 真爱粉 粉丝 路人 求求了 拜托 救命 无语 尴尬 离谱 真香 上头 破防了 格局 细节 高能 前方高能
名场面 经典 打call 爷青回 下饭 催更 太快了 慢一点 说慢点 等一下 等等我 稍等 马上 快点 快快快 开始了 开始了吗
什么时候开始 结束了 倒计时 三二一 三 二 一 上
"""
"""Greetings and reactions."""

SHOPPING = """\
多少钱 多少钱一件 价格多少 什么价格 价格能再低点吗 能便宜点吗 太贵了 有点贵 不贵 便宜 好便宜 划算 太划算了 性价比高
值得买 值不值 原价多少 到手价 直播价 今天最低价 全网最低 最低价了吗 比店里便宜 降价了吗 会降价吗 保价吗 有优惠吗
有优惠券吗 优惠券怎么领 怎么领券 券在哪里领 领不到 领到了 用不了 满减怎么算 满多少减 可以叠加吗 打几折 打折 折扣
买一送一 买二送一 第二件半价 有赠品吗 送什么 送运费险吗 有运费险吗 包邮吗 偏远地区包邮吗 新疆包邮吗 运费多少
发什么快递 什么时候发货 今天能发货吗 几天到 几天能到 多久到货 到货了 收到了 收到货了 还没收到 还没发货 怎么还不发货
物流 顺丰 中通 圆通 快递 客服 客服不回 联系客服 问客服 怎么退货 退换货 可以退吗 能退货吗 七天无理由 退款 已退款 售后
质量怎么样 质量好吗 质量很好 质量不错 做工 面料是什么 面料是什么的 什么材质 材质 纯棉 真丝 羊毛 真皮 会起球吗
会不会起球 会掉色吗 会不会掉色 会缩水吗 可以机洗吗 怎么洗 透不透 厚不厚 薄不薄 保暖吗 显瘦吗 显胖吗 显白吗 显黑
黄皮能用吗 偏大还是偏小 尺码偏大吗 码数正吗 有大码吗 有小码吗 均码 穿多大码 我穿什么码 建议拍什么码 身高体重
身高一米六 体重一百斤 斤穿什么码 多高多重 胖的能穿吗 孕妇可以用吗 孕妇能用吗 小孩能用吗 小孩子能吃吗 老人能用吗
敏感肌能用吗 油皮适合吗 干皮 混合皮 男生可以用吗 学生党 有什么颜色 有黑色吗 有白色吗 还有别的颜色吗 看看黑色
看看白色 试一下 试穿一下 试一下这个 上身效果 上身看看 转一圈 拿近点 近一点 看一下细节 看看背面 看下后面 看看鞋子
讲一下 讲讲 再讲一遍 再介绍一下 讲一下一号链接 介绍一下 看看一号 看看三号 一号链接 二号链接 三号链接 几号链接
链接在哪 链接在哪里 链接呢 上链接 上链接了吗 没有链接 找不到链接 小黄车 购物车 购物袋 橱窗 下单 已下单 下单了 已拍
拍了 拍了两件 买了 已经买了 又买了 回购 回购了 无限回购 买过 上次买的 之前买的 用过 好用 好用吗 很好用 不好用 好吃吗
好吃 很好吃 味道怎么样 甜吗 辣吗 新鲜吗 保质期 保质期多久 生产日期 产地 是正品吗 正品吗 假货 有保障 有发票吗 有货吗
还有货吗 没货了 还有库存吗 库存 加库存 补货 补货吗 什么时候补货 再上一点 再加点 抢到了 抢不到 没抢到 没抢到啊 秒没
秒没了 手慢了 手慢无 一秒没 拼手速 已付款 付款了 付不了款 怎么付款 地址 改地址 可以改地址吗 预售 定金 尾款 现货 新款
爆款 同款 主播同款 主推 福利 福利款 上福利 宠粉 秒杀 秒杀价 限时 限量 清仓 断码 套餐 组合装 一箱 一盒 一瓶 一包 一斤
五斤 一套 一双 一件 两件 三件 口红 面膜 精华 粉底 防晒 洗面奶 护肤品 化妆品 衣服 裤子 裙子 连衣裙 外套 羽绒服 毛衣
卫衣 衬衫 鞋子 运动鞋 高跟鞋 包包 手机 耳机 充电器 电脑 键盘 零食 水果 牛奶 茶叶 大米 坚果 牛肉 海鲜 纸巾 洗衣液
洗发水 沐浴露 牙膏 被子 枕头 四件套 锅 杯子 玩具 奶粉 尿不湿 猫粮 狗粮 红包 抢红包 红包雨 发红包 福袋 抽奖 抽奖了
怎么抽奖 抽中了 没抽中 中奖了 没中奖 中奖名单 开奖 开奖了吗 几点开奖 口令 投票 答题 选 第一题 答案是 排行榜 榜一
榜一大哥 榜一大姐 连胜 比心 送你 送礼物 刷礼物 小心心 玫瑰 玫瑰花 火箭 嘉年华 跑车 游艇 城堡 皇冠 气球 棒棒糖 啤酒
墨镜 热气球 守护 贵宾 舰长 会员
"""
"""Questions and answers about goods, prices and delivery; activities and gifts."""

SIGNS = """\
666666666666 88888888 99999999 11111111 22222222 33333333 23333333 5555555 1314 520520 100 200 50 10 20 30 99 199
299 399 9.9元 19.9元 29.9元 块钱 元一 ？？？？？？ ！！！！！！ 。。。。。。 …… ～～～～ ，，， ???? !!!! ....
++++ 😂😂😂😂 🤣🤣🤣 ❤️❤️❤️❤️ 👍👍👍👍 🔥🔥🔥🔥 🎉🎉🎉 😍😍😍 🥰🥰🥰 😭😭😭 👏👏👏👏 🌹🌹🌹🌹 💪💪💪 🙏🙏🙏 😘😘
😁😁 😎😎 🤔🤔 😅😅 💯💯 ✨✨✨ 💕💕 💖💖 🎁🎁 🧧🧧 🚀🚀 😊😊 😄😄 👀👀 🐶 🐱 🍺 🌟 💐 🎂 🍉 👌 ✌️ 🤝 [笑哭] [爱心]
[玫瑰] [赞] [鼓掌] [比心] [捂脸] [大笑] [666]
"""
"""Numbers, punctuation and emoji."""

ENGLISH = """\
hello everyone hi everyone good morning good evening good night welcome thank you so much thanks thank you please
nice to meet you from the Philippines from Malaysia from Indonesia from Thailand from Vietnam from the US
first time here I'm new here just joined let's go LET'S GO so good so cute so beautiful so pretty looks good
love this love it I love you love the color amazing awesome wow omg lol LOL haha hahahaha gg GG no way nice one
well played what happened what is this what's the how much is it how much is the price please what size size chart
do you have size is it available in stock out of stock sold out restock when will you restock how long is shipping
free shipping ship to shipping fee discount code coupon voucher any discount buy one get one how to order how to buy
I ordered just ordered add to cart checked out can you show show the back show number try it on what material
is it waterproof is it original does it fit does it come with can I return refund giveaway who won I won
congratulations congrats good luck follow back shout out song name can't hear no sound lagging the sound the camera
number item black white pink blue green purple small medium large available I want I need I have can you could you
would you do you have is there are you there is this is that is it is with the for the of the in the on the to the
and the you are your will be about because really very please again where when which people today tomorrow
"""
"""The same in English, with the space after each word."""

NAMES = """\
小 阿 老 大 先生 小姐 爸爸 妈妈 宝宝 姐姐 哥哥 同学 老师 用户 游客 匿名 快乐的 可爱的 爱吃 不吃 喵 猫 兔子 小鱼 小熊
月亮 星星 太阳 阳光 清风 微笑 天空 大海 夏天 冬天 春天 秋天 晴天 晚风 奶茶 西瓜 草莓 柠檬 桃子 橙子 糖果 奶糖 小仙女
小可爱 小明 小红 小李 小王 小张 小陈 李 王 张 刘 陈 杨 黄 赵 吴 周 徐 孙 马 朱 胡 林 郭 何 高 罗 user- user_ User
viewer guest Guest anonymous Anna Ben Chen David Emma Jack James John Kevin Lily Linda Lisa Lucy Maria Mary Michael
Mike Nancy Peter Sam Sarah Sophia Tom Tony Wang Zhang
"""
"""Parts of names."""

RECORDS = """\
rocket rose heart crown castle balloon product price_cents order- announcement lotteries.announced lotteries.opened
lotteries.closed lotteries.drawn lotteries.counted products.put products.explaining products.clicked orders.shown
sales.opened sales.price_changed sales.restocked sales.sold_out sales.closed sales.counted packets.opened
packets.emptied packets.expired packets.counted rains.drop_announced rains.drop_opened rains.drop_emptied
polls.opened polls.counted polls.closed coupons.opened coupons.exhausted quizzes.opened quizzes.asked
quizzes.counted quizzes.revealed rankings.changed pk.score_changed audiences.counted moderation.muted
countdowns.started mic.seats_changed https://cdn. .jpg .png text user name state count total left
"""
"""Names of gifts, events and fields of the protocol."""

COMMON = """\
酒店 房间 这本书 服务 我们 一个 感觉 的时候 比较 就是 自己 了一 不知道 服务员 非常 入住 但是 酒店的 这样的 也不
的酒店 的服务 系统 觉得 很多 因为 还可以 时间 自己的 而且 是不 的房间 如果 是一 是我 的感觉 不过 前台 的一 不错的
方便 的书 朋友 发现 是很 现在 服务态度 所以 也很 一般 虽然 设施 不能 都是 一本 应该 不是很 看到 的人 故事 东西 内容
卫生间 还不错 的东西 第二天 可能 电话 早餐 个人 了这本书 很不错 有一 他们 房间的 有些 宾馆 都不 一些 书的 这个酒店
为什么 也是 的地方 希望 里面 一样 没什么 其他 客人 生活 让人 我觉得 很方便 小时 都没有 作者 可能是 环境 让我 驱动
推荐 也没有 面的 是不是 人的 住的 那么 打电话 大床房 的价格 这本书的 以后 给我 星级 的朋友 书中 实在 位置 配置
的问题 不太 速度 我是 只有 很喜欢 酒店的服务 特别 里面的 笔记本 地理位置 基本 们的 中的 个小时 对于 屏幕 很大 工作
了一个 只能 是不错的 了一下 前台服务 是一个 星级酒店 大的 这里 说的 分钟 结果 这是 安装 的内容 我们的 这套书 这么
干净 是在 居然 一直 散热 舒服 上网 人员 后来 满意 有的 选择 的很 容易 餐厅 不知道是 外观 是有 最后 房间里 感觉不
这个价格 装修 是房间 这家酒店 这种 只是 了很多 硬盘 用的 上的 标准 是这 入住的 使用 网上 装系统 来说 是因为 还有就是
到的 根本 真是 的话 还是不错 以前 一定 是我们 有一个 小说 书中的 需要 还是不错的 四星级 之后 麻烦 的那 还是很 孩子的
出来 评价 也不错 没有什么 不方便 服务人员 工作人员 有很多 用了 不是很好 简单 还算 最好的 他的 应该是 一本书 不喜欢
有问题 作者的 一天 非常好 特别是 的故事 的生活 的时间 是比较 电池 感觉很 到酒店 不会再 女儿 其实 服务员的 要求
总体感觉 直接 的一本书 说是 我想 看完 都有 还是比较 房间设施 这本书是 里的 房间很 买了一 作为 除了 信用卡 两个
是没有 都很 还没有 最差的 一个人 所有 这是我 那个 失望 相当 可以接受 多的 非常不 这个价位 在这 完全 该酒店 订单 很有
是第一次 差不多 招待所 的笔记本 机器 空调 中国 了几 无法 的小 儿子 的态度 就好了 看了一 入住时 这次 我住的 告诉我
很好的 以为 五星级 喜欢这 确实 星级的 也可以 实在是 可是 到这 的一个 拿到 很快 竟然 本来 多了 说明 还要 的心 几个
住这 就不 商务 方面 订的 世界 看这本书 饭店 酒店了 是个 阅读 很舒服 他们的 喜欢的 服务生 尤其是 给我们 都不错 好像
比较好 也比较 评论 的标准 真的很 有这样 一般的 由于 得很 兴趣 设计 的女 还是可以 用起来 运行 也不是 是服务 的设施
也不会 没想到 是非常 交通 提供 书的时候 的订单 是一本 考虑 了一点 非常的 我们这 总是 有这样的 的文字 住过 很不错的
去了 就可以 书的内容 预定 也许 打开 送货 经历 下的 为了 三星 不如 软件 其中 写的 度也 于是 同事 这些 也很好 隔音
我自己 大酒店 再次 让我们 段时间 估计 这一 住的是 大堂 门口 下次去 的位置 不容易 那些 爱情 心理 的评价 满意的 态度也
电视 可以看 我也 然是 的情况 住过的 如果你 看起来 的就是 客房 我不 就没 学习 然后 高的 并不 免费 我还 周围 有了
简单的 很干净 住这里 想象 合理 过了 和服务 真的不 她的 得不 电梯 的孩子 本人 的宾馆 妈妈 是最 我一 服务也 有点不
原来 觉得这 清楚 不怎么 不大 根本不 更好 感觉还 还是有 设施还 不一样 在酒店 每个人 一样的 就没有 的一些 明显 父母
爱的 习惯 当时 我说 太多 经理 当然 回来 不想 的系统 发热 好书 一定要 关于 根本就 时间长 如何 有时 套房 才能 感受
宝宝 的大 一家 左右 觉得很 不合理 要是 朋友的 的那么 看的 也许是 的电 收费 普通 摄像头 很一般 因为我 显示 的客人
你们 到这本 如果是 不舒服 个故事 前台的 速度也 故事的 服务还 度也很 的了 都可以 是这样 有一点 在这里 硬件 另外 解决
人都 要的 读完 安静 影响 认为 退房 意思 过来 了解 包装 中心 不可 电源 换了 也就 很差 只要 会有 去的 本的 无论 它的
一起 装的 整体 发热量 重要的 主要 我们是 不过我 出租车 人生 主人公 一看 没见过 一段 客户 等了 酒店在 我们不 长时间
比较小 看完了 算是 是那 天的 进行 缺点 吸引 升级 我就 洗澡 的爱情 窗户 别人 就在 此书 品牌 看到了 有个 这么多 也非常
不敢 的事 生活的 算可以 很大的 想象中 找到 很满意 本本 推荐的 系统的 下去 在一 基本上 但是这 最大的 价格还 在房间
也不好 在这个 根本没 的质量 所有的 很容易 系列 性的 生的 的主 新的 专业 真正 正常 游戏 热水 安排 上下 并且 历史 同时
你的 了个 来看 绝对 一种 然不 水平 原因 家长 的水 送的 那里 几乎 操作 或者 很小 语言 不同 小朋友 想象的 买了这 是太
不足 稍微 真正的 定的 准备 的选择 是大 以上 豪华 服务很 正在 主要是 住在 总的来 一位 我订的 还不如 的声音 装了 也有
房间还 此酒店 方面的 看过 能不 能不能 实在太 所以我 的工作 外面 算不错 提高 样子 说明书 还会 的味道 是酒店 教育
生活中 上去 出去 了几个 出来的 洗手间 因为这 了一些 是一般 的女儿 而不是 就是一 拿到手 才知道 很漂亮 个人的 订的是
不适合 有没有 给孩子 在一起 会再住 点评 实用 肯定 陈旧 风扇 性能 为是 行李 附近 过去 就有 在我 那种 经常 小的 知识
间有 到一 功能 相信 的确 机场 简直 色的 是让 不管 处理 作品 任何 唯一 感到 女人 甚至 看来 到我 出了 对我 机子 意见
出的 读者 太差 解释 很难 心的 加了 毛巾 是否 我要 办法 书了 家的 预订 过这 能够 我买 道理 给了 开了 不少 版的 一切
的要 价钱 不用 文章 第三 是要 垃圾 毕竟 房价 遇到 继续 最近 上有 的最 年的 如此 睡觉 令人 换房 鼠标 离开 提出 下来
还行 总台 出差 一条 社会 岁的 不满 至于 比如 不上 相对 热情 平时 英语 对这 公司 的意 说了 老师 注意 星的 许多 是自
房的 部分 带的 意识 指纹 完美 我感 更多 的这 较大 不住 倒是 无线 很热 间不 点的 翻译 吃饭 地毯 到书 手续 优点 经过
电影 半天 情的 不够 是好 要不 理的 总之 那样 了半 错误 好几 定了 一晚 书籍 以及 先生 理解 上看 十分 很高 印象 之间
似乎 成长 要好 动的 是看 图画 不爽 遗憾 成了 大概 全部 手感 的理 在不 放在 告知 比我 过程 我只 同样 相比 上面 一会
收获 期间 有好 国的 的说 的自 少了 坏的 下载 就看 强烈 说不 就像 开机 地铁 面对 还好 的我 光盘 人不 个字 得一 观点
各种 好多 条件 边的 千万 人物 的作 成为 预装 怀疑 打车 其它 自助 个月 帮我 度很 前的 多人 噪音 买来 事情 留下 心情
的也 出现 度不 价值 能让 决定 半夜 到位 够用 办理 学的 真实 行的 么好 后悔 很久 记得 流畅 楼层 的经 成功 全是 时的
顺利 标间 人感 较差 是他 面是 不算 只好 情节 了些 旧了 的同 男人 两天 就算 方法 超值 送到 了的 翻了 有趣 能看 上了
我很 可惜 方式 帮助 错了 都能 都会 果不 开心 当的 宣传 钢琴 是说 特色 的原 说我 的成 郁闷 生命 不得 马桶 塑料 的家
家庭 也还 度还 要有 有多 心里 给人 下了 怎样 人在 进去 间也 的行 丰富 经济 们也 好不 员工 角度 永远 确认 舒适 感情
首先 是对 启动 之一 有两 机会 尽管 超市 想的 用户 在看 让他 行政 书上 才是 对不 本身 的思 实际 这书 突然 我对 一间
一张 设置 合适 打扫 时尚 停车 就一 独立 得有 后就 上来 身边 是小 用一 的教 曾经 的单 便利 人间 档次 空间 差了 女孩
多年 有不 结帐 宽带 是作 句话 后的 单词 在那 有自 我没 于我 反正 距离 充满 时代 我和 这款 周边 目前 类的 的有 为一
定会 给她 服的 贵的 国际 询问 设备 显得 订房 不开 特价 像是 精彩 前面 我已 造成 得太 景房 浪费 带来 重量 类似 读了
实惠 的收 极差 床单 人有 不说 提醒 当我 的方 作的 更加 在上 的老 写得 我有 吃的 飞机 外的 看着 认识 期待 了三 的图
后还 坏了 上是 原装 们说 半个 一部 版本 即使 看书 所说 火车 淋浴 另一 师的 的男 后一 能有 是为 来是 回答
"""
"""Common words and turns, the most frequent first."""
