"""What the shop sells. Prices in cents."""

from __future__ import annotations

import sqlite3
from typing import Any

from web import Database, Failure, Request, Service

SCHEMA = """
CREATE TABLE IF NOT EXISTS products (
    id TEXT PRIMARY KEY, name TEXT, section TEXT, cents INTEGER, text TEXT, hue INTEGER, shape TEXT
)
"""
# id, name, section, cents, text, hue, shape
PRODUCTS = [
    ("moka-3", "Moka pot, three cups", "Coffee", 2890, "Aluminium, for gas and electric hobs", 22, "pot"),
    ("moka-6", "Moka pot, six cups", "Coffee", 3690, "For when the whole house wakes up", 18, "pot"),
    ("grinder", "Hand grinder", "Coffee", 6450, "Conical steel burrs, forty settings", 30, "jar"),
    ("dripper", "Porcelain dripper", "Coffee", 2250, "Fits every cone filter of size 02", 205, "cup"),
    ("kettle", "Gooseneck kettle", "Coffee", 7900, "One litre, with a thermometer in the lid", 210, "pot"),
    ("scale", "Brewing scale", "Coffee", 4500, "A tenth of a gram, with a timer", 190, "box"),
    (
        "beans-house",
        "House blend, 500 g",
        "Coffee",
        1290,
        "Brazil and Ethiopia, roasted on Mondays",
        25,
        "bag",
    ),
    ("beans-decaf", "Decaf, 500 g", "Coffee", 1390, "Swiss water process; tastes of coffee", 340, "bag"),
    ("teapot", "Cast-iron teapot", "Tea", 5480, "Keeps a litre hot for two hours", 160, "pot"),
    ("gaiwan", "Gaiwan", "Tea", 1980, "White porcelain, 120 ml", 170, "cup"),
    ("sencha", "Sencha, 100 g", "Tea", 1450, "First flush from Shizuoka", 110, "bag"),
    ("assam", "Assam, 100 g", "Tea", 980, "Malty, stands up to milk", 14, "bag"),
    ("rooibos", "Rooibos, 100 g", "Tea", 760, "From the Cederberg", 8, "bag"),
    ("strainer", "Bamboo strainer", "Tea", 690, "Lasts longer than you would think", 80, "jar"),
    ("mug-blue", "Stoneware mug, blue", "Table", 1650, "Thrown by hand, 300 ml", 215, "cup"),
    ("mug-ochre", "Stoneware mug, ochre", "Table", 1650, "Thrown by hand, 300 ml", 40, "cup"),
    ("mug-moss", "Stoneware mug, moss", "Table", 1650, "Thrown by hand, 300 ml", 120, "cup"),
    ("bowl", "Breakfast bowl", "Table", 1890, "Deep enough for seconds", 280, "cup"),
    ("jug", "Milk jug", "Table", 2100, "Pours without dripping", 200, "pot"),
    ("tray", "Oak tray", "Table", 3900, "Oiled, 40 by 30 cm", 35, "box"),
    ("spoons", "Four tea spoons", "Table", 1200, "Brushed steel", 220, "box"),
    ("linen", "Linen napkins, four", "Table", 2600, "Washed, so they are soft already", 60, "bag"),
    ("biscotti", "Almond biscotti", "Pantry", 640, "Made to be dipped", 32, "bag"),
    ("honey", "Chestnut honey, 250 g", "Pantry", 1120, "Dark and a little bitter", 45, "jar"),
    ("jam", "Apricot jam, 340 g", "Pantry", 720, "More fruit than sugar", 28, "jar"),
    ("oats", "Rolled oats, 1 kg", "Pantry", 380, "Whole grain", 48, "bag"),
    ("granola", "Granola, 600 g", "Pantry", 890, "Hazelnuts, no raisins", 36, "jar"),
    ("cocoa", "Cocoa, 250 g", "Pantry", 950, "Twenty-two percent cocoa butter", 16, "box"),
    ("cinnamon", "Cinnamon sticks", "Pantry", 540, "Ceylon, ten sticks", 20, "jar"),
    ("shortbread", "Shortbread", "Pantry", 590, "Butter, flour, sugar, patience", 50, "box"),
    ("book-tea", "The tea atlas", "Books", 3200, "Six hundred growers on four hundred pages", 130, "book"),
    ("book-coffee", "Coffee at home", "Books", 2800, "From bean to cup, without mysteries", 12, "book"),
]
COLUMNS = "id, name, section, cents, text, hue, shape"


def fill(connection: sqlite3.Connection) -> None:
    """The assortment."""
    connection.executemany("INSERT INTO products VALUES (?, ?, ?, ?, ?, ?, ?)", PRODUCTS)


service = Service("catalog")
database = Database("catalog", SCHEMA, fill)


@service.route("GET", "/products")
def products(request: Request) -> list[dict[str, Any]]:
    """Everything, or one section."""
    if section := request.query.get("section"):
        return database.all(f"SELECT {COLUMNS} FROM products WHERE section = ? ORDER BY name", section)
    return database.all(f"SELECT {COLUMNS} FROM products ORDER BY section, name")


@service.route("GET", "/products/{key}")
def product(_request: Request, key: str) -> dict[str, Any]:
    """One product."""
    found = database.one(f"SELECT {COLUMNS} FROM products WHERE id = ?", key)
    if found is None:
        raise Failure(404, f"there is no product {key}")
    return found


if __name__ == "__main__":
    service.run()
