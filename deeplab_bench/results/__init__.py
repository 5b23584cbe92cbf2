"""Result files: where they lie, what they hold, what they were made from."""
