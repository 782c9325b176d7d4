"""What each attention head attends to, the kinds of head that follow, and what chance gives."""
