"""What stands on a synthetic bank slip: its characters, labels, and makers of random values.

Every maker takes a ``numpy.random.Generator`` and returns one line of text, so a text is decided by the seed alone.
Drawing is in ``receipts.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

# Every character a slip may hold, in the recogniser's order (blank and space are added by the model). Capital I and O
# never appear in random references: printed beside 1 and 0 nobody can tell them apart, which is why banks avoid them.
CHARACTERS = (
    "0123456789"
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    "abcdefghijklmnopqrstuvwxyz"
    "¥,.:-/()*#"
    "零壹贰叁肆伍陆柒捌玖拾佰仟万元角分整"
    "王李张刘陈杨黄赵周吴徐孙马朱胡林郭何高罗"
    "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀兰霞平刚桂英建国华文玉红梅志海燕"
    "中工商银行农业设交通招民生分支营部"
    "北京上广州深圳杭南成都武汉西安天津大路"
    "东方长城新星和信达物贸易科技电子有限公司食品服饰机械"
    "付款人收账号户名金额写小日期开用途流水柜员备注币种凭证摘要余手续费转时间经办复核记打印"
    "回单进现存条货工资房租差旅务材料还报销学运保险定活年月专章讫"
)
CHARACTERS = "".join(dict.fromkeys(CHARACTERS))


def random_text(rng: np.random.Generator) -> str:
    """Make one line of a kind that slips hold, for training the recogniser on more lines than slips have."""
    return str(pick(rng, _VALUES)(rng))


def pick(rng: np.random.Generator, options: Sequence) -> object:
    """Take one of the options; a string is taken as its characters."""
    return options[int(rng.integers(len(options)))]


def _digits(rng, count: int) -> str:
    return "".join(str(digit) for digit in rng.integers(0, 10, count))


def _person(rng) -> str:
    given = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀兰霞平刚桂英建国华文玉红梅志海燕"
    name = pick(rng, "王李张刘陈杨黄赵周吴徐孙马朱胡林郭何高罗")
    return name + "".join(pick(rng, given) for _ in range(int(rng.integers(1, 3))))


def _company(rng) -> str:
    city = pick(rng, ["", *_CITIES])
    brand = pick(rng, ["东方", "长城", "新星", "和信", "达明", "海天", "华文", "国信", "建达", "金玉"])
    trade = pick(rng, ["贸易", "科技", "电子", "食品", "服饰", "机械", "材料", "商务", "生物", "建设"])
    return f"{city}{brand}{trade}有限公司"


def bank(rng: np.random.Generator) -> str:
    """Name a bank that most readers know."""
    return pick(
        rng, ["中国工商银行", "中国农业银行", "中国建设银行", "交通银行", "招商银行", "中国民生银行", "中国银行"]
    )


def _branch(rng) -> str:
    return f"{bank(rng)}{pick(rng, _CITIES)}{pick(rng, ['分行', '支行', '路支行', '营业部'])}"


def _account(rng) -> str:
    form = rng.random()
    if form < 0.4:
        return f"6222{_digits(rng, int(rng.integers(12, 16)))}"
    if form < 0.6:
        return f"{_digits(rng, 4)}****{_digits(rng, 4)}"
    return f"{_digits(rng, 4)}-{_digits(rng, 4)}-{_digits(rng, int(rng.integers(4, 8)))}"


def _number(rng) -> str:
    return _digits(rng, int(rng.integers(4, 13)))


def _value(rng) -> int:
    """An amount in cents; magnitudes from one yuan to nearly a million are equally frequent."""
    return int(10 ** rng.uniform(2, 7.99))


def _amount(rng) -> str:
    cents = _value(rng)
    sign = pick(rng, ["¥", "¥", "RMB", ""])
    return f"{sign}{cents // 100:,}.{cents % 100:02d}"


def capital_amount(cents: int) -> str:
    """Write an amount in cents (1 to 99,999,999) in the capitals of Chinese cheques.

    Example:
        >>> capital_amount(1234567)
        '壹万贰仟叁佰肆拾伍元陆角柒分'
        >>> capital_amount(100500)
        '壹仟零伍元整'
    """
    figures = "零壹贰叁肆伍陆柒捌玖"
    yuan, jiao, fen = cents // 100, cents // 10 % 10, cents % 10

    def below_ten_thousand(number: int) -> str:
        text, gap = "", False
        for value, unit in ((1000, "仟"), (100, "佰"), (10, "拾"), (1, "")):
            digit = number // value % 10
            if digit:
                text += ("零" if gap and text else "") + figures[digit] + unit
                gap = False
            else:
                gap = True
        return text

    high, low = divmod(yuan, 10000)
    text = below_ten_thousand(high) + "万" if high else ""
    if low:
        text += ("零" if high and low < 1000 else "") + below_ten_thousand(low)
    text = f"{text}元" if yuan else ""
    if not jiao and not fen:
        return f"{text}整"
    if jiao:
        text += figures[jiao] + "角"
    elif text:
        text += "零"
    return text + (figures[fen] + "分" if fen else "")


def _capitals(rng) -> str:
    cents = _value(rng)
    if rng.random() < 0.5:
        cents -= cents % 100  # whole yuan end in 整
    return f"{pick(rng, ['', '', '人民币'])}{capital_amount(cents)}"


def date(rng: np.random.Generator) -> str:
    """Make a date of 2015 to 2026 in one of three forms."""
    year, month, day = int(rng.integers(2015, 2027)), int(rng.integers(1, 13)), int(rng.integers(1, 29))
    form = pick(rng, ["{:04d}-{:02d}-{:02d}", "{:04d}/{:02d}/{:02d}", "{:04d}年{:02d}月{:02d}日"])
    return form.format(year, month, day)


def _time(rng) -> str:
    return f"{int(rng.integers(8, 20)):02d}:{int(rng.integers(60)):02d}:{int(rng.integers(60)):02d}"


def reference(rng: np.random.Generator) -> str:
    """Make a reference such as ``NSA-8666095F``."""
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    head = "".join(pick(rng, letters) for _ in range(int(rng.integers(2, 5))))
    tail = "".join(pick(rng, letters + "0123456789" * 2) for _ in range(int(rng.integers(0, 5))))
    return f"{head}{pick(rng, ['-', '', '/'])}{_digits(rng, int(rng.integers(4, 8)))}{tail}"


def _english(rng) -> str:
    return " ".join(str(pick(rng, _ENGLISH)) for _ in range(int(rng.integers(1, 4))))


def _purpose(rng) -> str:
    return pick(rng, _PURPOSES)


def _currency(rng) -> str:
    return pick(rng, ["人民币", "RMB", "CNY", "人民币元"])


def _note(rng) -> str:
    return pick(rng, [f"{_purpose(rng)}({int(rng.integers(1, 13))}月)", f"#{_digits(rng, 6)}", _english(rng)])


def _label(rng) -> str:
    return pick(rng, FIELDS)[0]


def labelled(label: str, value: str) -> str:
    """Join label and value into one line; half-width colon, as most printers set it."""
    return f"{label}:{value}"


def _any_labelled(rng) -> str:
    label, make = pick(rng, FIELDS)
    return labelled(label, str(make(rng)))


def mixed(rng: np.random.Generator) -> str:
    """Mix characters by pure chance: rare ones are seen as often as common ones, and no word is learned by heart."""
    return "".join(pick(rng, CHARACTERS) for _ in range(int(rng.integers(2, 9))))


def _title(rng) -> str:
    return f"{pick(rng, ['', bank(rng)])}{pick(rng, KINDS)}"


_CITIES = ("北京", "上海", "广州", "深圳", "杭州", "南京", "成都", "武汉", "西安", "天津")
KINDS = (
    "电子回单",
    "转账凭证",
    "进账单",
    "现金存款凭条",
    "业务回单",
    "收款回单",
    "付款凭证",
    "定期存单",
    "活期存款凭条",
)
_PURPOSES = (
    "货款",
    "工资",
    "房租",
    "水电费",
    "差旅费",
    "服务费",
    "材料款",
    "还款",
    "报销",
    "学费",
    "运费",
    "保险费",
    "旅费报销",
)
_ENGLISH = (
    "Payment", "Invoice", "Transfer", "Salary", "Goods", "Service", "Bank", "Account", "Date", "Amount", "Fee", "Tax",
    "Export", "Quick", "Jan", "Wage", "Kept", "Total", "Yearly", "Express", "Cash", "Unit", "Host", "Left", "Quarter",
)  # fmt: skip
FIELDS: tuple[tuple[str, Callable], ...] = (
    ("付款人", _company), ("收款人", _company), ("户名", _person), ("付款人户名", _person), ("收款人户名", _person),
    ("账号", _account), ("付款账号", _account), ("收款账号", _account), ("金额", _amount), ("小写金额", _amount),
    ("大写金额", _capitals), ("金额大写", _capitals), ("日期", date), ("交易日期", date), ("交易时间", _time),
    ("开户行", _branch), ("收款行", _branch), ("用途", _purpose), ("流水号", _number), ("交易流水号", reference),
    ("柜员", _number), ("柜员号", _number), ("备注", _note), ("摘要", _purpose), ("币种", _currency),
    ("凭证号", reference), ("余额", _amount), ("手续费", _amount), ("经办人", _person), ("复核", _person),
    ("记账", _person), ("打印时间", _time), ("Ref", reference), ("Remark", _english),
)  # fmt: skip
_VALUES: tuple[Callable, ...] = (
    _company, _person, _account, _account, _amount, _amount, _capitals, _capitals, date, _time, _branch, _purpose,
    _number, reference, reference, _note, _english, _currency, _label, _label, _any_labelled, mixed, mixed, _title,
)  # fmt: skip
