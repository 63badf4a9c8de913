"""The thin package behind the Dapur LLM notebooks: one subject a module.

Importing it loads neither torch nor transformers, because lesson 01 sets the
CUDA allocator through the environment and that must happen before torch starts.
"""

__version__ = "0.1.0"
