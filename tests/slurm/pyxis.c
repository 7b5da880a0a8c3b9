/* A stand-in for pyxis: its options of srun as a SPANK plugin, and a root file system made by container_root, which
 * plugstack.conf names as the plugin's argument. As pyxis it takes a mount for a line of an fstab: no spaces but \040.
 *   gcc -shared -fPIC -o pyxis.so pyxis.c */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <slurm/spank.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

SPANK_PLUGIN(pyxis, 1);

enum { IMAGE, MOUNTS, WORKDIR, NAME, ENTRYPOINT, OPTIONS };
static char *stated[OPTIONS];

static int take(int option, const char *value, int remote) {
	(void)remote;
	stated[option] = strdup(value ? value : "");
	return 0;
}

static struct spank_option options[] = {
	{"container-image", "IMAGE", "[stand-in for pyxis]", 1, IMAGE, take},
	{"container-mounts", "SRC:DST", "[stand-in for pyxis]", 1, MOUNTS, take},
	{"container-workdir", "PATH", "[stand-in for pyxis]", 1, WORKDIR, take},
	{"container-name", "NAME", "[stand-in for pyxis]", 1, NAME, take},
	{"no-container-entrypoint", NULL, "[stand-in for pyxis]", 0, ENTRYPOINT, take},
	SPANK_OPTIONS_TABLE_END};

int slurm_spank_init(spank_t sp, int count, char **words) {
	(void)count, (void)words;
	if (spank_context() == S_CTX_SLURMD) return 0;
	for (int i = 0; options[i].name; i++)
		if (spank_option_register(sp, &options[i]) != ESPANK_SUCCESS) return -1;
	return 0;
}

static int run(const char *program, const char *image, const char *mounts) {
	int status;
	pid_t child = fork();
	if (child == 0) {
		execl(program, program, image, mounts, NULL);
		_exit(127);
	}
	return waitpid(child, &status, 0) == child && status == 0 ? 0 : -1;
}

static int refuse(const char *what, const char *value) {
	fprintf(stderr, "pyxis: %s: %s\n", what, value);
	return -1;
}

int slurm_spank_task_init(spank_t sp, int count, char **words) {
	char *image = stated[IMAGE], root[4096];
	if (!image) return 0;
	if (count != 1) return refuse("plugstack.conf names no container_root", image);
	char *mounts = stated[MOUNTS] ? stated[MOUNTS] : "";
	if (strpbrk(mounts, " \"$`")) return refuse("no such mount", mounts);
	for (char *at; (at = strstr(mounts, "\\040"));) {
		*at = ' ';
		memmove(at + 1, at + 4, strlen(at + 4) + 1);
	}
	snprintf(root, sizeof root, "%s/root", image);
	if (unshare(CLONE_NEWNS) || run(words[0], image, mounts)) return refuse("no container", image);
	if (chroot(root) || chdir(stated[WORKDIR] ? stated[WORKDIR] : "/")) return refuse("no such directory", root);
	spank_setenv(sp, "PATH", "/image/bin:/usr/local/bin:/usr/bin:/bin", 1);
	return 0;
}
