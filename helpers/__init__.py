"""What several notebooks share, or what guards something that a learner cannot see.

Flat: `from helpers.models import load_base` says where it stands. Importing the package loads
neither torch nor transformers: lesson 01 sets the CUDA allocator through the environment, and that
must happen before torch starts.
"""

import sys

# A pipe on Windows has a code page of a few hundred signs: one that it lacks is written as "?",
# where it would end a command in a traceback. A notebook's output knows all of them.
if hasattr(sys.stdout, "reconfigure"):
    sys.stdout.reconfigure(errors="replace")
