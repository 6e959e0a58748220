"""What the package needs of the operating system: files, digests, errors, signals, the terminal.

It may import no other room of the package.
"""
