"""Run by every Python that a test starts: it looks for garbage less often.

What such a process does first is import libraries, whose thousands of new objects all stay: looking
through them again and again is a fifth of the time. A lesson that counts what is collected sees no
difference, since it asks for a collection itself.
"""

import gc

gc.set_threshold(50_000, 20, 100)
