"""Screens as HTML, for a browser to draw."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape

from kamera_agent.pocket.renderer import LABEL_Y, MARGIN, RADIUS, VALUE_Y, fitting_font
from kamera_agent.pocket.screen import CELL, Card, Screen
from kamera_agent.pocket.style import FONTS, Colour, Style


def to_html(screens: Sequence[Screen]) -> str:
    """One page with the screens below each other, at the left edge, without space between them."""
    fonts = "".join(map(_font_face, sorted({screen.style.font for screen in screens})))
    style = f"<style>{fonts}body{{margin:0}}div,span{{position:absolute;box-sizing:border-box}}</style>"
    top, parts = 0, []
    for screen in screens:
        parts.append(_screen(screen, top))
        top += screen.rows * CELL
    return f'<!doctype html><meta charset="utf-8">{style}<body style="height:{top}px">{"".join(parts)}</body>'


def _screen(screen: Screen, top: int) -> str:
    theme, width = screen.style.theme, screen.columns * CELL
    middle = CELL // 2
    title = _text(
        screen.title,
        screen.style.value_px,
        theme.title,
        (middle + screen.title_shift.right, middle + screen.title_shift.down),
        screen.style,
    )
    cards = "".join(_card(card, screen) for card in screen.cards)
    bar = f'<div style="left:0;top:0;width:{width}px;height:{CELL}px;background:{_css(theme.bar)}"></div>'
    box = f"left:0;top:{top}px;width:{width}px;height:{screen.rows * CELL}px;background:{_css(theme.page)}"
    return f'<div style="{box};overflow:hidden">{bar}{title}{cards}</div>'


def _card(card: Card, screen: Screen) -> str:
    row, column = divmod(card.cell, screen.columns)
    style, side = screen.style, CELL - 2 * MARGIN
    place = f"left:{column * CELL + MARGIN}px;top:{row * CELL + MARGIN}px;width:{side}px;height:{side}px"
    look = f"background:{_css(style.theme.card)};border:1px solid {_css(style.theme.border)};border-radius:{RADIUS}px"
    x = column * CELL + CELL // 2 + card.shift.right
    y = row * CELL + CELL // 2 + card.shift.down
    label = _text(card.label, style.label_px, style.theme.label, (x, y + LABEL_Y), style)
    value = _text(card.value, style.value_px, style.theme.value, (x, y + VALUE_Y), style)
    return f'<div style="{place};{look}"></div>{label}{value}'


def _text(text: str, size: int, colour: Colour, middle: tuple[int, int], style: Style) -> str:
    fitted = fitting_font(style.font, size, text).size
    place = f"left:{middle[0]}px;top:{middle[1]}px;transform:translate(-50%,-50%)"
    return f"<span style=\"{place};font:{fitted:.0f}px '{style.font}';color:{_css(colour)}\">{escape(text)}</span>"


def _font_face(name: str) -> str:
    data = b64encode((FONTS / name).read_bytes()).decode()
    return f"@font-face{{font-family:'{name}';src:url(data:font/sfnt;base64,{data})}}"


def _css(colour: Colour) -> str:
    return f"rgb{colour}"
