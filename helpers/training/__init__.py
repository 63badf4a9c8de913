"""Lesson 03: prompts, label masks, base models in 4 bits, LoRA, Trainer, guards, checkpoints."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__,
    prompts="encode",
    models="base_folder load_tokenizer load_base load_tuned",
    trainer="ChatDataset collate label_loss LabelTrainer GradientGuard History live_line "
    "lora_config attach_adapter steps_per_epoch arguments make_trainer check_logger",
)
