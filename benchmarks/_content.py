"""Real contents by family, taken from logs by a rule that leaves nothing to choose.

Tool results of 1,500 to 80,000 characters are sorted into families by what they look like (`family_of`), whole main
conversations of 5,000 to 40,000 tokens are chats. Of each family, those whose SHA-256 is smallest are taken, at most
two of one workflow, and at most half of them from one log; equal contents count once. Files that are not logs
(`*.json`, `*.log`, `*.txt`, `*.md`, `*.diff`, source files) are inputs as they are, of the family that they look like.
"""
