/* The system call filter. What a service never does is refused with EPERM
 * rather than death, so that a library's harmless probe does not end it. */
#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/socket.h>

#include "service/jail.h"
#include "service/sanitized.h"

/* New programs, other processes' memory, the shape of the system, and calls
 * that would get around the rest of the filter. */
static const char *const refused[] = {
    "execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise",
    "pidfd_getfd", "kcmp", "mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree",
    "fsopen", "fsmount", "fsconfig", "fspick", "mount_setattr", "setns", "unshare", "bpf",
    "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register",
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "keyctl",
    "add_key", "request_key", "open_by_handle_at", "name_to_handle_at", "swapon", "swapoff",
    "reboot", "sethostname", "setdomainname", "settimeofday", "clock_settime", "adjtimex",
    "clock_adjtime", "acct", "quotactl", "syslog", "personality", "fork", "vfork", "iopl", "ioperm",
    "vhangup", "modify_ldt", "tkill",
    /* other processes of the same user */
    "kill", "pidfd_open", "pidfd_send_signal", "rt_sigqueueinfo", "rt_tgsigqueueinfo",
    /* meeting places that a chroot does not close */
    "shmget", "semget", "msgget", "mq_open"};

/* Calls that a sanitized build's leak checker makes. */
static const char *const refused_unless_sanitized[] = {"ptrace", "tkill", "kill",
                                                       "process_vm_readv"};

static bool is_spared(const char *name)
{
    size_t count = sizeof refused_unless_sanitized / sizeof refused_unless_sanitized[0];
    for (size_t i = 0; SANITIZED && i < count; i++)
        if (strcmp(refused_unless_sanitized[i], name) == 0)
            return true;
    return false;
}

static int refuse(scmp_filter_ctx filter)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        int number = seccomp_syscall_resolve_name(refused[i]);
        /* negative: this kernel or architecture does not have it */
        if (number < 0 || is_spared(refused[i]))
            continue;
        int rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), number, 0);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* No new processes; threads only where the service has some. clone3 hides its
 * flags in memory: as if it did not exist, the C library then takes clone. */
static int refuse_clone(scmp_filter_ctx filter, bool threads)
{
    if (SANITIZED)
        return 0;
    int rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    if (rc == 0 && threads)
        rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                              SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0));
    else if (rc == 0)
        rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 0);
    return rc;
}

static int refuse_calls(scmp_filter_ctx filter, const char *const *names)
{
    int rc = 0;
    for (; *names && rc == 0; names++) {
        int number = seccomp_syscall_resolve_name(*names);
        if (number >= 0)
            rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), number, 0);
    }
    return rc;
}

/* Nobody makes UNIX sockets: those with a name without a path (abstract ones) are in
 * reach of every chroot, and what listens there may trust whoever comes. Channels,
 * logs and connections come from master. */
static int refuse_sockets(scmp_filter_ctx filter, bool network)
{
    static const char *const never[] = {"socket", "connect", "bind", "listen", NULL};
    static const char *const incoming[] = {"listen", "accept", "accept4", NULL};
    if (!network)
        return refuse_calls(filter, never);
    int rc = refuse_calls(filter, incoming);
    for (unsigned family = 0; family < AF_INET6 && rc == 0; family++)
        if (family != AF_INET)
            rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                                  SCMP_A0(SCMP_CMP_EQ, family, 0));
    /* above IPv6: netlink, raw packets, kernel crypto, virtual machines */
    if (rc == 0)
        rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                              SCMP_A0(SCMP_CMP_GT, AF_INET6, 0));
    return rc;
}

int jail_filter(bool network, bool threads, struct err *e)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    if (!filter)
        return err_set(e, "cannot make a system call filter");
    int rc = refuse(filter);
    if (rc == 0)
        rc = refuse_clone(filter, threads);
    if (rc == 0)
        rc = refuse_sockets(filter, network);
    if (rc == 0)
        seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree instead of a chain */
    if (rc == 0)
        rc = seccomp_load(filter);
    seccomp_release(filter);
    if (rc == 0)
        return 0;
    errno = -rc;
    return err_sys(e, "cannot load the system call filter");
}
