"""recaption.upload: a finished run to the Hugging Face Hub or to S3."""

from recaption.upload.command import main

__all__ = ["main"]
