"""Text in: topic cards, real text and prompts; documents, conversations and rankings' prompts out."""
