"""The thin package behind the Dapur LLM notebooks: one room a lesson, one subject a module.

Importing it, or a room, loads neither torch nor transformers: lesson 01 sets the CUDA allocator
through the environment, and that must happen before torch starts.
"""

import importlib


def lazy(room: str, **modules: str):
    """`__getattr__` and `__dir__` of a room (PEP 562): public names load their module at first use.

    `modules` maps each module of the room to its public names, separated by spaces.
    """
    home = {name: module for module, names in modules.items() for name in names.split()}

    def __getattr__(name: str):
        if name not in home:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{room}.{home[name]}"), name)

    return __getattr__, lambda: sorted(home)
