"""What several notebooks share, or what guards something that a learner cannot see.

Flat: `from helpers.models import load_base` says where it stands. Importing the package loads
neither torch nor transformers: lesson 01 sets the CUDA allocator through the environment, and that
must happen before torch starts.
"""
