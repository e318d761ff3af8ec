"""Which customers are about to leave, what each will be worth, and what each will buy next."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perennial import models as models
    from perennial.shop import Shop as Shop
    from perennial.shop import ShopAt as ShopAt
    from perennial.shop import encode as encode
    from perennial.shop import open as open
    from perennial.shop import to_arrow as to_arrow
    from workspace.settings import SettingsError as SettingsError
    from workspace.storage import CheckFailed as CheckFailed

__version__ = "0.1.0"

# The front door, by the module that has it: loaded when it is asked for, so that `import perennial` takes no time.
_WHERE = {
    **dict.fromkeys(("open", "Shop", "ShopAt", "encode", "to_arrow"), "perennial.shop"),
    "CheckFailed": "workspace.storage", "SettingsError": "workspace.settings",
}  # fmt: skip
__all__ = ["CheckFailed", "SettingsError", "Shop", "ShopAt", "encode", "open", "to_arrow"]


def __getattr__(name: str) -> Any:
    if name == "models":
        return import_module("perennial.models")
    if name not in _WHERE:
        raise AttributeError(f"module 'perennial' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
