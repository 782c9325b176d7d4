"""Programs that help to check the project by eye."""
