"""Lessons 08 to 11: validate chat JSONL, three tasks, a local job, a practice server."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__, validator="KINDS validate read_chats write_chats", tasks="load_task", job="finetune"
)
