"""The page. Everything on it comes from other services; when one fails, its part of the page says so."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template
from typing import Any

from web import Answer, Failure, Request, Service

HERE = Path(__file__).parent / "page"
PAGE = Template((HERE / "index.html").read_text())
FILES = {"style.css": "text/css", "shop.js": "text/javascript"}
SECTIONS = ("Coffee", "Tea", "Table", "Pantry", "Books")
DEFAULT_USER = "ada"

service = Service("front")


def money(cents: int) -> str:
    """``€28.90``."""
    return f"€{cents // 100}.{cents % 100:02}"


def picture(product: dict[str, Any]) -> str:
    """A drawing, made of the product's hue and shape."""
    hue = int(product["hue"])
    ink, paper = f"hsl({hue} 45% 32%)", f"hsl({hue} 60% 90%)"
    shapes = {
        "pot": '<path d="M30 38h36l8 40H22z"/>'
        '<path d="M70 46c16 0 16 22 4 24" fill="none" stroke-width="5"/>',
        "cup": '<path d="M26 42h40v20a16 16 0 0 1-16 16H42a16 16 0 0 1-16-16z"/>'
        '<path d="M66 48c14 0 14 18 0 18" fill="none" stroke-width="5"/>',
        "jar": '<rect x="30" y="36" width="36" height="44" rx="7"/>'
        '<rect x="34" y="24" width="28" height="10" rx="3"/>',
        "bag": '<path d="M30 32h36l6 48H24z"/>'
        '<path d="M38 32c0-14 20-14 20 0" fill="none" stroke-width="4"/>',
        "box": '<path d="M24 44l24-12 24 12v26L48 82 24 70z"/>',
        "book": '<path d="M28 26h36a6 6 0 0 1 6 6v46H34a6 6 0 0 1-6-6z"/>',
    }
    return (
        f'<svg viewBox="0 0 96 100" aria-hidden="true" style="background:{paper}">'
        f'<g fill="{ink}" stroke="{ink}">{shapes.get(product["shape"], shapes["box"])}</g></svg>'
    )


def card(product: dict[str, Any]) -> str:
    """One product."""
    key = escape(product["id"], quote=True)
    return (
        f'<article class="card">{picture(product)}<div><h3>{escape(product["name"])}</h3>'
        f'<p>{escape(product["text"])}</p><p class="price">{money(product["cents"])}</p>'
        f'<button data-buy="{key}">Order<span class="hidden"> {escape(product["name"])}</span></button>'
        "</div></article>"
    )


def unavailable(what: str, problem: Failure) -> str:
    """A part of the page that could not be had."""
    return f'<p class="unavailable" role="status">{escape(what)}: {escape(problem.message)}</p>'


@service.route("GET", "/")
def page(request: Request) -> Answer:
    """The shop's page for the customer of the cookie ``user``."""
    user = request.headers.get("x-shop-user") or request.cookie("user") or DEFAULT_USER
    try:
        products = {product["id"]: product for product in request.call("catalog", "/products")}
        sections = "".join(
            f'<section aria-labelledby="{name}"><h2 id="{name}">{name}</h2><div class="cards">'
            + "".join(card(product) for product in products.values() if product["section"] == name)
            + "</div></section>"
            for name in SECTIONS
        )
    except Failure as problem:
        products, sections = {}, unavailable("The catalog is closed", problem)
    try:
        picks = request.call("recommendations", f"/recommendations/{user}")
        version = escape(str(picks["version"]))
        cards = "".join(card(products[key]) for key in picks["products"] if key in products)
        advice = (
            f'<h2 id="picks">For you <span class="badge {version}">recommendations {version}</span></h2>'
            f"<p>Because {escape(picks['because'])}.</p>"
            f'<div class="cards">{cards}</div>'
        )
    except Failure as problem:
        advice = '<h2 id="picks">For you</h2>' + unavailable("No recommendations now", problem)
    try:
        people = request.call("users", "/users")
        options = "".join(
            f'<option value="{escape(one["id"], quote=True)}"{" selected" if one["id"] == user else ""}>'
            f"{escape(one['name'])}, {escape(one['city'])}</option>"
            for one in people
        )
    except Failure:
        options = f'<option value="{escape(user, quote=True)}">{escape(user)}</option>'
    served = ", ".join(escape(str(step.get("by", step["service"]))) for step in request.trail)
    body = PAGE.substitute(advice=advice, sections=sections, users=options, served=served)
    return Answer(body, type="text/html", headers={"cache-control": "no-store"})


@service.route("GET", "/static/{name}")
def static(_request: Request, name: str) -> Answer:
    """The page's own files."""
    if name not in FILES:
        raise Failure(404, f"there is no {name}")
    return Answer((HERE / name).read_text(), type=FILES[name])


if __name__ == "__main__":
    service.run()
