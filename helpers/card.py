"""The first visible GPU as torch sees it, as JSON: name, bytes of memory, compute capability.

`settings.find_device` runs it in a process of its own, since lesson 01 sets the allocator before
torch is imported. Where torch cannot compute on the card, it ends with torch's error.
"""

import json

import torch

# Only trying tells: a driver may be too old, a card too old or too new for this torch.
(torch.ones(1, device="cuda") + 1).item()
card = torch.cuda.get_device_properties(0)
print(json.dumps([card.name, card.total_memory, [card.major, card.minor]]))
