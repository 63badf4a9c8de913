"""Lesson 03: prompts and label masks, the base model in 4 bits, LoRA, the Trainer and its guards, checkpoints."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__,
    dataset="ChatDataset EncodedRows",
    trainer="collate label_loss LabelTrainer GradientGuard History lora_config "
    "CHECKPOINTING attach_adapter steps_per_epoch arguments make_trainer",
)
