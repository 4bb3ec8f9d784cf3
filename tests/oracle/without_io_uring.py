# SPDX-License-Identifier: LGPL-2.1-or-later
"""python3 -m without_io_uring ERRNO COMMAND...: runs the command where io_uring_setup(2) fails, as
in containers (EPERM) and on old kernels (ENOSYS). Status 77 where filters cannot be set."""
import ctypes
import errno
import os
import struct
import sys

IO_URING_SETUP = 425  # on every architecture
LOAD_NR, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2


def main():
    number = getattr(errno, sys.argv[1])
    code = b"".join(struct.pack("=HBBI", *i) for i in (
        (LOAD_NR, 0, 0, 0), (JUMP_EQUAL, 0, 1, IO_URING_SETUP), (RETURN, 0, 0, ERRNO | number),
        (RETURN, 0, 0, ALLOW)))
    buffer = ctypes.create_string_buffer(code)
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP" if struct.calcsize("P") == 8 else
                                                      "HxxP", 4, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    if (libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or
            libc.prctl(PR_SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0)):
        sys.exit(77)
    os.execvp(sys.argv[2], sys.argv[2:])


main()
