"""The GPU side of fastzsl: both ops in Triton, forward and backward.

Importing this package imports neither Triton nor a driver; `launch` and the kernel files do, and
`fastzsl.ops.triton` loads them only when a call has been found servable. README.md beside this file
describes each kernel.
"""
