"""What the Layer-time page is made of: its prompts, its settings, and what a picture shows."""
