/* Runs a program and lets one of its system calls fail.
 *
 *     inject FOLDER N LOG PROGRAM ARGUMENT...
 *
 * Counts the calls that change files below FOLDER: opens for writing, writes, syncs, truncations, renames, links and new
 * folders. Call number N fails with EIO and does nothing; with N = 0 none fails. LOG gets a line for each call: its name and
 * the path. The exit status is the program's.
 *
 * The kernel stops the program at each such call and asks this process (seccomp_unotify(2), Linux 5.9 or newer). So calls
 * of libraries that bypass libc are counted too.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* Where a call says which file it changes. */
enum target {
    FD,          /* argument 0 is the open file */
    PATH,        /* argument 0 is the path */
    OPEN,        /* the same, and argument 1 has the flags */
    AT,          /* arguments 0 and 1 are a folder and a path below it */
    OPEN_AT,     /* the same, and argument 2 has the flags */
    NEW_PATH,    /* argument 1 is the new path */
    NEW_AT,      /* arguments 2 and 3 are a folder and the new path below it */
};

static const struct call {
    int number;
    enum target target;
    const char *name;
} CALLS[] = {
#ifdef SYS_open /* newer architectures have only the calls with "at" */
    {SYS_open, OPEN, "open"},
    {SYS_creat, PATH, "open"},
    {SYS_mkdir, PATH, "mkdir"},
    {SYS_rename, NEW_PATH, "rename"},
    {SYS_link, NEW_PATH, "link"},
    {SYS_symlink, NEW_PATH, "symlink"},
#endif
#ifdef SYS_renameat
    {SYS_renameat, NEW_AT, "rename"},
#endif
    {SYS_openat, OPEN_AT, "open"},
    {SYS_mkdirat, AT, "mkdir"},
    {SYS_renameat2, NEW_AT, "rename"},
    {SYS_linkat, NEW_AT, "link"},
    {SYS_write, FD, "write"},
    {SYS_writev, FD, "write"},
    {SYS_pwrite64, FD, "write"},
    {SYS_pwritev, FD, "write"},
    {SYS_copy_file_range, FD, "write"},
    {SYS_fsync, FD, "fsync"},
    {SYS_fdatasync, FD, "fsync"},
    {SYS_syncfs, FD, "fsync"},
    {SYS_ftruncate, FD, "truncate"},
    {SYS_truncate, PATH, "truncate"},
    {SYS_fallocate, FD, "truncate"},
};
enum { COUNT = sizeof CALLS / sizeof *CALLS };

static void fail(const char *what)
{
    perror(what);
    exit(125);
}

/* Makes the kernel stop this process and its children at each of CALLS. Returns a file from which another process reads the
 * calls and to which it writes the answers. */
static int listen_to_calls(void)
{
    struct sock_filter code[COUNT + 3];
    struct sock_fprog program = {COUNT + 3, code};
    code[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < COUNT; i++)
        code[1 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALLS[i].number, COUNT - i, 0);
    code[COUNT + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[COUNT + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fail("no_new_privs");
    int listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (listener < 0)
        fail("seccomp");
    return listener;
}

/* Passes an open file to the process at the other end of `socket`, or takes one from it. */
static int pass_file(int socket, int file)
{
    char byte = 0;
    struct iovec data = {&byte, 1};
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = {{0}};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (file < 0) {
        struct cmsghdr *head = recvmsg(socket, &message, MSG_CMSG_CLOEXEC) == 1 ? CMSG_FIRSTHDR(&message) : NULL;
        if (head)
            memcpy(&file, CMSG_DATA(head), sizeof file);
        return file;
    }
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof file), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(head), &file, sizeof file);
    if (sendmsg(socket, &message, 0) != 1)
        fail("sendmsg");
    return file;
}

/* The path that a link of /proc names; empty if the process is gone. */
static void link_of(int pid, const char *kind, int file, char *path)
{
    char link[64];
    snprintf(link, sizeof link, file < 0 ? "/proc/%d/%s" : "/proc/%d/%s/%d", pid, kind, file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
}

/* The absolute path of a path in the memory of the process `pid`. */
static void path_of(int pid, int folder, unsigned long long address, char *path)
{
    char text[PATH_MAX] = {0};
    for (size_t at = 0; at < sizeof text - 1 && !memchr(text, 0, at);) { /* up to the end of a page: the next may be missing */
        size_t length = 4096 - (address + at) % 4096;
        length = length < sizeof text - 1 - at ? length : sizeof text - 1 - at;
        struct iovec to = {text + at, length}, from = {(void *)(size_t)(address + at), length};
        if (process_vm_readv(pid, &to, 1, &from, 1, 0) <= 0)
            break;
        at += length;
    }
    if (text[0] != '/') {
        link_of(pid, folder == AT_FDCWD ? "cwd" : "fd", folder == AT_FDCWD ? -1 : folder, path);
        strncat(path, "/", PATH_MAX - 1 - strlen(path));
    } else {
        path[0] = 0;
    }
    strncat(path, text, PATH_MAX - 1 - strlen(path));
}

/* The path that a call changes; empty if it changes none. */
static void changed(const struct seccomp_notif *question, enum target target, char *path)
{
    const __u64 *argument = question->data.args;
    int pid = question->pid, writes = O_WRONLY | O_RDWR | O_CREAT;
    path[0] = 0;
    switch (target) {
    case FD: link_of(pid, "fd", argument[0], path); break;
    case PATH: path_of(pid, AT_FDCWD, argument[0], path); break;
    case AT: path_of(pid, argument[0], argument[1], path); break;
    case NEW_PATH: path_of(pid, AT_FDCWD, argument[1], path); break;
    case NEW_AT: path_of(pid, argument[2], argument[3], path); break;
    case OPEN: if (argument[1] & writes) path_of(pid, AT_FDCWD, argument[0], path); break;
    case OPEN_AT: if (argument[2] & writes) path_of(pid, argument[0], argument[1], path); break;
    }
}

int main(int count, char **arguments)
{
    if (count < 5) {
        fputs("usage: inject FOLDER N LOG PROGRAM ARGUMENT...\n", stderr);
        return 125;
    }
    const char *folder = arguments[1];
    long fails = atol(arguments[2]), calls = 0;
    FILE *log = fopen(arguments[3], "we");
    int sockets[2];
    if (!log || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets))
        fail("inject");
    pid_t child = fork();
    if (child == 0) {
        pass_file(sockets[1], listen_to_calls());
        execv(arguments[4], arguments + 4);
        fail(arguments[4]);
    }
    close(sockets[1]);
    struct pollfd listener = {pass_file(sockets[0], -1), POLLIN, 0};
    if (listener.fd < 0)
        return 125;
    /* Until the program and its children have ended. */
    while (poll(&listener, 1, -1) > 0 && (listener.revents & POLLIN)) {
        struct seccomp_notif question = {0};
        if (ioctl(listener.fd, SECCOMP_IOCTL_NOTIF_RECV, &question))
            continue; /* the process was killed meanwhile */
        struct seccomp_notif_resp answer = {.id = question.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        const struct call *call = CALLS;
        while (call->number != question.data.nr)
            call++;
        char path[PATH_MAX];
        changed(&question, call->target, path);
        if (!strncmp(path, folder, strlen(folder))) {
            fprintf(log, "%s %s\n", call->name, path);
            if (++calls == fails)
                answer = (struct seccomp_notif_resp){.id = question.id, .error = -EIO};
        }
        ioctl(listener.fd, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
    fclose(log);
    int status;
    if (waitpid(child, &status, 0) < 0)
        fail("waitpid");
    if (WIFSIGNALED(status))
        raise(WTERMSIG(status));
    return WEXITSTATUS(status);
}
