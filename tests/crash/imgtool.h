/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All of imgtool as a function, so that what its commands do to files can be recorded. */
#ifndef IMGFS_TESTS_IMGTOOL_H
#define IMGFS_TESTS_IMGTOOL_H

/* Outside of coroutines, on a thread without a loop. The exit status. */
int imgtool_main(int argc, char **argv);

#endif
