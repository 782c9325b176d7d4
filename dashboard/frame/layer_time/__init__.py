"""Parts of the Layer-time page: prompts, settings, and the picture."""
