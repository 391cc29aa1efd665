"""What ``kit.equalize`` stands on: moving scales between layers without changing an answer."""
