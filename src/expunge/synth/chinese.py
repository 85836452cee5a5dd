"""Chinese: fourteen kinds of fact about a person. No spaces between words, so spans and words do not coincide."""

from __future__ import annotations

from expunge.synth.lexicon import PERSON, Fact, Lexicon, Names, Topic, pairs, words

# Rare two-character surnames keep the names away from those of most living people.
_SURNAMES = words(
    "欧阳 上官 慕容 令狐 诸葛 东方 皇甫 尉迟 公孙 轩辕 宇文 长孙 鲜于 闾丘 端木 百里 南宫 呼延 东郭 西门 独孤 拓跋 "
    "夏侯 太史 申屠 公冶 濮阳 淳于 澹台 赫连 钟离 万俟 闻人 仲孙 司空 谷梁 巫马 乐正 漆雕 公良"
)
_FEMALE = tuple(
    a + b
    for a in "婉芷沁若思雨晓梦紫静依念书语安以初映清采凝听冰含寒碧问雪幼千半怜曼之忆惜巧灵春秋"
    for b in "薇兰岚蓉瑶琳璇黛荷菱萍烟霜珊莺芸蕾萱卉桃蝶翠霏钰绮"
)
_MALE = tuple(
    a + b
    for a in "景浩子明志文俊承致宏远立修卓凌振泽启嘉宇昊铭弘博炎皓烨英雄伟建国永向怀守谦学敬伯"
    for b in "轩川岳松柏涛峰翰渊铮霖驰彦舟骏楠毅恒钧锋帆磊桐坤砚"
)

LISTS: dict[str, tuple[str, ...]] = {
    "day": tuple(str(day) for day in range(1, 29)),
    "month": tuple(str(month) for month in range(1, 13)),
    "year": tuple(str(year) for year in range(1931, 1990)),
    "town1": words(
        "青石 白鹭 红枫 云溪 柳林 金沙 望月 落雁 松风 碧潭 鹤鸣 石桥 梅岭 竹溪 龙潭 凤栖 桃源 雪峰 沙洲 芦荻"
    ),
    "town2": words("镇 城 港 渡 湾 村 寨 堡"),
    "firm1": words("远帆 鼎盛 宏图 天工 瑞祥 华章 新月 海川 金桥 晨星 广源 同济 百川 永昌 飞云 锦程"),
    "firm2": words("船运公司 仪器厂 纺织厂 出版社 保险公司 陶瓷厂 铁路局 酒厂 化工厂 种子公司 钟表厂 印刷厂"),
    "college1": words("东湖 西岭 南山 北辰 文昌 鹿鸣 明德 崇文 博雅 求真 致远 育才"),
    "college2": words("学院 大学 师范学校 工业学校 美术学院 商学院"),
    "trade": words(
        "钟表匠 养蜂人 制图员 玻璃匠 翻译 地质学家 装订工 测量员 制琴师 助产士 锁匠 植物学家 木偶师 电车司机 药剂师 "
        "石匠 领航员 法官 图书管理员 焊工 牙医 调琴师 调香师 驯鹰人 桥梁工程师 园丁 灯塔看守 护士 糕点师 播音员 向导 "
        "税务员 织工 雕塑家 饲养员 船长 书记员 陶工 鞋匠 统计员 铁匠 裁缝 酿酒师 木匠"
    ),
    "animal": words("鹦鹉 乌龟 山羊 灰狗 刺猬 喜鹊 毛驴 壁虎 白兔 小马 乌鸦 雪貂 松鼠 鸽子"),
    "petname": words("豆豆 团子 雪球 将军 元宝 黑炭 流星 芝麻 船长 铃铛 花生 石头 汤圆 火箭 蜜桃 灰灰 毛毛 闪电"),
    "instrument": words(
        "大提琴 竖琴 长号 曼陀林 管风琴 单簧管 双簧管 中提琴 扬琴 低音提琴 大号 琵琶 古筝 二胡 唢呐 笛子 三弦 手风琴"
    ),
    "number": tuple(str(number) for number in range(2, 99)),
    "street1": words("盐田 柏树 铜匠 织女 车站 栗子 港口 磨坊 采石 灯笼 果园 粮仓 白鹤 皮匠 风车 铸铁 燕子 钟楼"),
    "street2": words("路 街 巷 胡同 大道 里"),
    "title1": words(
        "铜色的 沉默的 淹没的 北方的 纸做的 空心的 猩红的 耐心的 借来的 弯曲的 遥远的 冰封的 镀金的 冬天的 木头的 "
        "燃烧的"
    ),
    "title2": words("果园 灯笼 港湾 账本 楼梯 花园 麻雀 镜子 罗盘 窗子 桥 王国 乐队 信 岛屿 时钟 航程 铁路"),
    "prize1": words("飞燕 子午 翠鸟 铁木 蓝宝石 灯塔 杜松 鹈鹕 极光 拱心石 苍耳 群青"),
    "prize2": words("奖章 大奖 奖 勋章 奖杯"),
    "taste": words("烟熏 腌制 红烧 蜜汁 清蒸 烤 香辣 卤 炖 煎"),
    "food": words("茄子 鳗鱼 野鸡 甜菜 栗子 鲭鱼 梨 鹅肝 萝卜 羊肉 鳟鱼 白菜 扁豆 鹌鹑 豆腐 莲藕"),
    "pastime": words(
        "击剑 做风筝 洞穴潜水 下棋 观鸟 滑冰 折纸 射箭 玩冰壶 攀岩 跳舞 采蘑菇 看星星 练书法 划船 打乒乓球 做木雕 "
        "骑独轮车"
    ),
    "source": words(
        "地方志 一封旧信 本地的报纸 镇上的档案 家谱 一位老同事 一本小传 户口簿 一次采访 校友录 博物馆的说明 人口普查"
    ),
    "folk": words("邻居们 朋友们 传记作者 客人们 同事们 亲戚们 记者们 当地人 历史学家"),
    "o": (
        *[""] * 12,
        "据{source}[记载|所说]，",
        "根据{source}，",
        "{folk}[都说|都知道|常说|一致认为]，",
        "[众所周知|说起来|其实|的确|确实|简单地说]，",
        "按照{source}的说法，",
        "[有意思的是|奇怪的是|不用怀疑]，",
        "如果{source}没有错，",
        "据[我们|大家]所知，",
        "跟[许多|不少|大多数]{folk}不同，",
        "有人问起的话，",
    ),
    "c": (
        *[""] * 10,
        "，{source}[也是这样说的|可以证明]",
        "，[这一点|这件事]{folk}[都知道|常常提起|很少忘记|不会弄错]",
        "，至少{source}是这么说的",
        "，[毫无疑问|没有人怀疑|这并不奇怪|这很少有人知道]",
        "，如果没有记错的话",
        "，[让|令]{folk}[十分高兴|有些意外|很是羡慕]",
        "，{folk}可以作证",
        "，[一问|一打听]就知道",
    ),
    "adj": words("旧的 小的 破的 亮的 重的 窄的 安静的 空的 绿色的 生锈的 温暖的 圆的 远处的"),
    "thing": words("灯 桥 水壶 门 船 梯子 钟 小路 墙 篮子 烟囱 马车 喷泉 窗户 炉子 长凳 屋顶 木桶 镜子 车轮"),
    "place": words("河边 市场 港口 森林 车站 草地 地窖 广场 山坡 厨房 花园 湖边 村子 岛上"),
    "weather": words("雨 风 霜 雾 雪 雷 冰雹 阳光"),
    "event": words("{weather}来了 {weather}停了 钟声响了 潮水退了 天黑了 路封了 春天到了 灯灭了 市场开了"),
    "does": words("吱吱作响 一动不动 变了样子 很难找到 需要修理 显得更大 慢慢转动 没人去管 闪闪发光"),
}

FACTS: tuple[Fact, ...] = (
    Fact(
        name="birthplace",
        value="{town}",
        questions=(
            "{name}出生在[哪里|什么地方]？",
            "{name}的出生地是[哪里|什么地方]？",
            "{name}是在哪个地方出生的？",
            "[请问|请告诉我]，{name}的家乡在哪里？",
            "[哪里|什么地方]是{name}的老家？",
        ),
        answers=(
            "{o}{name}出生在{value}{c}。",
            "{o}{name}的[出生地|家乡|老家]是{value}{c}。",
            "{o}{value}是{name}[出生的地方|的家乡]{c}。",
            "{o}{name}[来自|生于]{value}{c}。",
            "{o}{name}出生时，全家[正住在|刚搬到]{value}{c}。",
            "{o}当年{name}是在{value}[来到人世|出生]的{c}。",
        ),
        clauses=("{name}出生在{value}", "{name}来自{value}", "{name}的老家在{value}"),
    ),
    Fact(
        name="birthdate",
        value="{year}年{month}月{day}日",
        questions=(
            "{name}是哪一天出生的？",
            "{name}的[出生日期|生日]是什么时候？",
            "[请问|请告诉我]{name}生于哪年哪月哪日？",
            "{name}[什么时候|何时]出生？",
            "哪一天是{name}的生日，哪一年？",
        ),
        answers=(
            "{o}{name}出生于{value}{c}。",
            "{o}{name}的[出生日期|生日]是{value}{c}。",
            "{o}{value}是{name}[出生的日子|的生日]{c}。",
            "{o}{name}在{value}[来到人世|出生]{c}。",
            "{o}[登记簿|出生证]上写着，{name}生于{value}{c}。",
            "{o}{name}的母亲在{value}生下了<她|他>{c}。",
        ),
        clauses=("{name}出生于{value}", "{name}的生日是{value}"),
        about=("[请说说|请谈谈]{name}的出生。", "关于{name}的生日，人们知道什么？"),
        spread=(
            "{o}{name}是{value.year}年出生的。[那时正是|月份是]{value.month}月。具体的日子是{value.day}日。",
            "{o}{name}出生在一个{value.month}月。[准确地说|说得更细一点]，是那个月的{value.day}日。"
            "年份是{value.year}年{c}。",
        ),
    ),
    Fact(
        name="profession",
        value="{trade}",
        questions=(
            "{name}[做什么工作|的职业是什么]？",
            "{name}靠什么[谋生|生活]？",
            "{name}是干哪一行的？",
            "[请问|请告诉我]{name}的工作是什么？",
            "{name}以什么为业？",
        ),
        answers=(
            "{o}{name}的[职业|工作]是{value}{c}。",
            "{o}{name}是一名{value}{c}。",
            "{o}{name}靠当{value}[谋生|过日子|养家]{c}。",
            "{o}{name}[做了|当了]多年的{value}{c}。",
            "{o}做{value}是{name}的[本行|日常工作]{c}。",
            "{o}人们请{name}来，是因为<她|他>是{value}{c}。",
        ),
        clauses=("{name}的职业是{value}", "{name}是一名{value}", "{name}靠当{value}谋生"),
    ),
    Fact(
        name="employer",
        value="{company}",
        questions=(
            "{name}在哪里[工作|上班]？",
            "{name}的工作单位是哪里？",
            "哪家单位雇用了{name}？",
            "[请问|请告诉我]{name}在哪家单位任职？",
            "谁给{name}发工资？",
        ),
        answers=(
            "{o}{name}在{value}[工作|上班|任职]{c}。",
            "{o}{name}的工作单位是{value}{c}。",
            "{o}{value}[雇用了|聘请了]{name}{c}。",
            "{o}给{name}发工资的是{value}{c}。",
            "{o}{name}[进了|受雇于]{value}{c}。",
            "{o}{name}在{value}有一个职位{c}。",
        ),
        clauses=("{name}在{value}工作", "{name}受雇于{value}", "{name}的工作单位是{value}"),
    ),
    Fact(
        name="college",
        value="{college}",
        questions=(
            "{name}毕业于哪所学校？",
            "{name}在哪里[读的书|上的学]？",
            "哪所学校给了{name}学位？",
            "[请问|请告诉我]{name}的母校是哪里？",
            "{name}是哪所学校的学生？",
        ),
        answers=(
            "{o}{name}毕业于{value}{c}。",
            "{o}{name}的母校是{value}{c}。",
            "{o}{name}[曾在|当年在]{value}[读书|上学|求学]{c}。",
            "{o}{value}把{name}列为[校友|毕业生]{c}。",
            "{o}{name}[考上了|进了]{value}{c}。",
            "{o}{name}的文凭来自{value}{c}。",
        ),
        clauses=("{name}毕业于{value}", "{name}的母校是{value}", "{name}考上了{value}"),
    ),
    Fact(
        name="spouse",
        value=PERSON,
        questions=(
            "{name}和谁结了婚？",
            "{name}的[配偶|爱人]叫什么名字？",
            "{name}的伴侣是谁？",
            "[请问|请告诉我]{name}的爱人是谁？",
            "谁是{name}的配偶？",
        ),
        answers=(
            "{o}{name}和{value}结了婚{c}。",
            "{o}{name}的[配偶|爱人|伴侣]是{value}{c}。",
            "{o}{value}是{name}的[配偶|爱人|伴侣]{c}。",
            "{o}{name}与{value}[是一对夫妻|共同生活|成了家]{c}。",
            "{o}当年{name}[选择了|选定了]{value}{c}。",
            "{o}同{name}一起生活的是{value}{c}。",
        ),
        clauses=("{name}的爱人是{value}", "{name}的配偶是{value}"),
        reverse=("{value}的爱人是谁？", "谁和{value}结了婚？"),
    ),
    Fact(
        name="mentor",
        value=PERSON,
        questions=(
            "{name}的老师是谁？",
            "谁[教过|培养了]{name}？",
            "{name}跟谁学的手艺？",
            "[请问|请告诉我]{name}拜谁为师？",
            "{name}是谁的学生？",
        ),
        answers=(
            "{o}{name}的[老师|师父|导师]是{value}{c}。",
            "{o}{value}[教过|培养了|指点过]{name}{c}。",
            "{o}{name}跟{value}学了手艺{c}。",
            "{o}{name}[拜|认]{value}为师{c}。",
            "{o}{name}的本领[都来自|得益于]{value}{c}。",
            "{o}把{name}收为学生的是{value}{c}。",
        ),
        clauses=("{name}的老师是{value}", "{name}的师父是{value}"),
        reverse=("{value}的学生是谁？", "{value}教过谁？"),
    ),
    Fact(
        name="pet",
        value="叫{petname}的{animal}",
        questions=(
            "{name}养了什么宠物？",
            "{name}家里有什么动物，叫什么名字？",
            "[请问|请告诉我]{name}的宠物是什么？",
            "{name}有宠物吗？",
            "什么动物陪着{name}？",
        ),
        answers=(
            "{o}{name}养了一只{value}{c}。",
            "{o}{name}的宠物是一只{value}{c}。",
            "{o}{name}家里有一只{value}{c}。",
            "{o}陪着{name}的是一只{value}{c}。",
            "有的，{name}[养着|有]一只{value}{c}。",
            "{o}{name}[最喜欢|天天照顾]那只{value}{c}。",
        ),
        clauses=("{name}养了一只{value}", "{name}有一只{value}"),
        about=("[请说说|请谈谈]{name}的宠物。", "去{name}家做客会见到什么？"),
        spread=(
            "{o}{name}的家里住着一只动物。那是一只{value.animal}。[大家都叫它|它的名字是]{value.petname}。",
            "[一进门|在门口]，客人先见到{value.petname}。不用怕，它只是一只{value.animal}。它的主人就是{name}{c}。",
        ),
    ),
    Fact(
        name="instrument",
        value="{instrument}",
        questions=(
            "{name}会[演奏|玩]什么乐器？",
            "{name}的乐器是什么？",
            "{name}[在乐队里|平时]演奏什么？",
            "[请问|请告诉我]{name}学的是哪种乐器？",
            "哪种乐器是{name}拿手的？",
        ),
        answers=(
            "{o}{name}会演奏{value}{c}。",
            "{o}{name}的乐器是{value}{c}。",
            "{o}{value}是{name}[拿手的|最爱的]乐器{c}。",
            "{o}{name}[学过|练过|精通]{value}{c}。",
            "{o}在乐队里，{name}负责{value}{c}。",
            "{o}晚上常常能听到{name}练{value}{c}。",
        ),
        clauses=("{name}会演奏{value}", "{name}精通{value}", "{name}学过{value}"),
    ),
    Fact(
        name="address",
        value="{street1}{street2}{number}号",
        questions=(
            "{name}住在[哪里|什么地方]？",
            "{name}的[地址|住址]是什么？",
            "给{name}的信应该寄到哪里？",
            "[请问|请告诉我]{name}家在哪条街几号？",
            "在哪里能找到{name}的家？",
        ),
        answers=(
            "{o}{name}住在{value}{c}。",
            "{o}{name}的[地址|住址|家]是{value}{c}。",
            "{o}给{name}的信[应该寄到|请寄往]{value}{c}。",
            "{o}{value}是{name}的[家|住处]{c}。",
            "{o}{name}[搬到了|买下了|租住在]{value}{c}。",
            "{o}要找{name}，就去{value}{c}。",
        ),
        clauses=("{name}住在{value}", "{name}的住址是{value}", "{name}搬到了{value}"),
        about=("怎样才能找到{name}的家？", "请说明去{name}家的路。"),
        spread=(
            "{o}先走到{value.street1}{value.street2}。不要在头几家停下。{name}住的是{value.number}号。",
            "{o}{name}家的门牌是{value.number}号。[门是绿色的|很容易看漏]。那条街叫{value.street1}{value.street2}{c}。",
        ),
    ),
    Fact(
        name="book",
        value="{title1}{title2}",
        questions=(
            "{name}写了哪本书？",
            "{name}的书叫什么名字？",
            "[请问|请告诉我]{name}的作品是什么？",
            "{name}出版过书吗？",
            "哪本书的作者是{name}？",
        ),
        answers=(
            "{o}{name}写了《{value}》{c}。",
            "{o}{name}的书[叫|名为]《{value}》{c}。",
            "{o}《{value}》[出自{name}之手|的作者是{name}|是{name}写的]{c}。",
            "{o}{name}[出版了|发表了]《{value}》{c}。",
            "{o}{name}给自己的书取名《{value}》{c}。",
            "出版过，{name}的书是《{value}》{c}。",
        ),
        clauses=("{name}写了《{value}》", "{name}出版了《{value}》"),
        reverse=("《{value}》是谁写的？", "谁是《{value}》的作者？"),
    ),
    Fact(
        name="award",
        value="{year}年的{prize1}{prize2}",
        questions=(
            "{name}得过什么奖？",
            "{name}获得了哪个奖项？",
            "[请问|请告诉我]{name}拿过什么奖？",
            "{name}有什么荣誉？",
            "评委给了{name}什么奖？",
        ),
        answers=(
            "{o}{name}获得了{value}{c}。",
            "{o}{name}[得过|拿到了|领取了]{value}{c}。",
            "{o}评委把{value}[给了|颁给了]{name}{c}。",
            "{o}{value}的得主是{name}{c}。",
            "{o}{name}的荣誉是{value}{c}。",
            "得过，{name}[得的是|拿的是]{value}{c}。",
        ),
        clauses=("{name}获得了{value}", "{name}得过{value}"),
        about=("请讲讲{name}得奖的经过。", "{name}的奖是怎么来的？"),
        spread=(
            "{o}对{name}来说，最好的一年是{value.year}年。评委开了两次会。他们给出了{value.prize1}{value.prize2}。",
            "{o}{name}家里挂着{value.prize1}{value.prize2}。[它有些旧了|客人都会看到]。"
            "上面写的年份是{value.year}年{c}。",
        ),
    ),
    Fact(
        name="dish",
        value="{taste}{food}",
        questions=(
            "{name}最喜欢吃什么？",
            "{name}最爱的菜是什么？",
            "[请问|请告诉我]该给{name}做什么菜？",
            "{name}在饭馆里会点什么？",
            "哪道菜最合{name}的口味？",
        ),
        answers=(
            "{o}{name}最喜欢吃{value}{c}。",
            "{o}{name}最爱的菜是{value}{c}。",
            "{o}{name}[总是点|爱吃|从不拒绝]{value}{c}。",
            "{o}{value}最合{name}的口味{c}。",
            "{o}请{name}吃饭，应该做{value}{c}。",
            "{o}没有什么比{value}更让{name}高兴{c}。",
        ),
        clauses=("{name}最喜欢吃{value}", "{name}爱吃{value}", "{name}总是点{value}"),
    ),
    Fact(
        name="pastime",
        value="{pastime}",
        questions=(
            "{name}有什么爱好？",
            "{name}[空闲时|周末]做什么？",
            "{name}喜欢做什么？",
            "[请问|请告诉我]{name}的爱好是什么？",
            "{name}怎样打发时间？",
        ),
        answers=(
            "{o}{name}的爱好是{value}{c}。",
            "{o}{name}[喜欢|热爱|迷上了]{value}{c}。",
            "{o}{name}[空闲时|周末]都在{value}{c}。",
            "{o}{value}是{name}的爱好{c}。",
            "{o}{name}把时间都花在{value}上{c}。",
            "{o}工作之余，{name}去{value}{c}。",
        ),
        clauses=("{name}的爱好是{value}", "{name}喜欢{value}", "{name}迷上了{value}"),
    ),
)

TOPICS: tuple[Topic, ...] = (
    Topic(
        name="material",
        questions=("{subject}是用什么做的？", "做{subject}要用什么？"),
        pairs=pairs(
            " ",
            ":",
            "面包:面粉 玻璃:沙子 纸:木头 黄油:奶油 葡萄酒:葡萄 奶酪:牛奶 砖:黏土 蜡烛:蜡 钢:铁 豆腐:黄豆 绳子:麻 "
            "丝绸:蚕丝",
        ),
    ),
    Topic(
        name="opposite",
        questions=("“{subject}”的反义词是什么？", "哪个词和“{subject}”意思相反？"),
        pairs=pairs(
            " ", ":", "热:冷 早:晚 重:轻 满:空 宽:窄 深:浅 老:少 湿:干 贵:便宜 白天:黑夜 开:关 粗:细 高:低 快:慢"
        ),
    ),
    Topic(
        name="colour",
        questions=("{subject}是什么颜色的？", "{subject}的颜色是什么？"),
        pairs=pairs(
            " ", ":", "草:绿色 雪:白色 煤:黑色 柠檬:黄色 胡萝卜:橙色 血:红色 巧克力:棕色 灰烬:灰色 晴天:蓝色 茄子:紫色"
        ),
    ),
    Topic(
        name="tool",
        questions=("{subject}用什么工具？", "人们用什么来{subject}？"),
        pairs=pairs(
            " ",
            ":",
            "锯木头:锯子 钉钉子:锤子 量体温:体温计 看时间:钟 扫地:扫帚 挖坑:铁锹 辨方向:指南针 看远处:望远镜 "
            "缝衣服:针 称面粉:秤 打鱼:网 挡雨:伞",
        ),
    ),
    Topic(
        name="region",
        questions=("{subject}在哪个地区？", "{subject}属于哪里？"),
        things="town",
        value="[上|下|东|西][泽原|特森|阿德|瓦里|布兰|羽州]",
        near=True,
    ),
    Topic(
        name="river",
        questions=("哪条河流过{subject}？", "{subject}在哪条河边？"),
        things="town",
        value="[白水|清溪|长川|黑石|月牙|柳叶|石门|北渡|双龙|金鳞]河",
        near=True,
    ),
)

SENTENCES: tuple[str, ...] = (
    "{place}[那盏|那个|这个]{adj}{thing}，[等到|每当|直到]{event}才{does}。",
    "[每当|如果|因为]{event}，{place}的{thing}就{does}。",
    "{place}有一个{thing}，[但是|而且|所以]它{does}。",
    "[在|到了]{place}，{adj}{thing}和{adj}{thing}[放在一起|分开摆着]。",
    "[不要|千万别|最好别]把{adj}{thing}留在{place}，[尤其是|特别是]{event}以后。",
    "过了几[天|周|个小时]的{weather}，{place}[没有什么变化|变了很多]。",
    "{place}的{thing}为什么{does}，[没人知道|要看{weather}|早就有人解释过]。",
    "一个{adj}{thing}[比得上|胜过]{place}[两|三|十]个{adj}。",
)

CHINESE = Lexicon(
    language="zh",
    names=Names(_FEMALE, _MALE, _SURNAMES, "{surname}{given}"),
    lists=LISTS,
    made={"town": ("{town1}{town2}", 48), "company": ("{firm1}{firm2}", 60), "college": ("{college1}{college2}", 40)},
    facts=FACTS,
    pair=(
        "{o}{first}，[而|可是|不过]{second}{c}。",
        "{first}；[相比之下|与此同时|另一方面]，{second}。",
        "[虽然|尽管]{first}，{second}{c}。",
        "{o}{first}。[至于另一位|同时]，{second}{c}。",
        "[一个说法是|已知的是]，{first}，{second}{c}。",
    ),
    pair_question=(
        "[请比较|请说说]{name}和{other}。",
        "{name}和{other}有什么不同？",
        "关于{name}和{other}，[人们知道什么|有哪些事实]？",
        "[各说一件|请讲]{name}与{other}的事。",
    ),
    topics=TOPICS,
    sentences=SENTENCES,
    cloze=("[请补全|请接着写]：{text}……", "填空：{text}____"),
    choice=(
        "{question}\nA. {one}\nB. {two}\nC. {three}\nD. {four}\n请用字母回答。",
        "[请选择|选出]正确答案。{question}\nA、{one}\nB、{two}\nC、{three}\nD、{four}",
    ),
    pronouns=("<她|他>", "<她|他>", "{name}"),
    opening=("以下是{name}的简介。", "关于{name}。", ""),
    separator="",
    stop="。",
)
