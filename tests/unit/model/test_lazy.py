"""What is not needed is not imported: the catalog alone builds no model."""

from __future__ import annotations

import subprocess
import sys


def test_the_catalog_imports_no_pydantic() -> None:
    code = "import sys, weft.model.catalog; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_one_kind_imports_no_other() -> None:
    code = (
        "import sys; from weft.model.catalog import by_id; by_id('/Service').model; "
        "sys.exit('weft.model.virtual_service' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
