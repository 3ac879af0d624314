// SPDX-License-Identifier: GPL-2.0
/*
 * Loading, the files in debugfs, and /dev/vsoc.  What the module is, is in
 * vsoc.h.
 *
 *   /sys/kernel/debug/vsoc/machine    write the description (vsoc_desc.c), once; reads back
 *                         control    switches (vsoc_control.c)
 *                         truth      all residencies and energies (vsoc_phys.c)
 *                         energy_uj  the package's true energy since the description
 *                         tasks      time and energy per thread (vsoc_tasks.c)
 */
#define pr_fmt(fmt) "vsoc: " fmt
#include <linux/debugfs.h>
#include <linux/hrtimer.h>
#include <linux/math64.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include "vsoc.h"

#define MAX_TEXT	65536

struct vsoc_machine *vsoc;
struct vsoc_page *vsoc_page;
DEFINE_MUTEX(vsoc_setup_lock);
static char *description;

/* ---- /dev/vsoc; vsoc_uapi.h says what it promises ---- */

static enum hrtimer_restart halt_over(struct hrtimer *t)
{
	return HRTIMER_NORESTART;
}

static long dev_ioctl(struct file *f, unsigned int cmd, unsigned long ns)
{
	struct hrtimer t;

	if (cmd != VSOC_HALT)
		return -ENOTTY;
	if (!ns || ns > VSOC_HALT_MAX_NS)
		return -EINVAL;
	hrtimer_setup_on_stack(&t, halt_over, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
	/* no interrupt between the test and the halt: sti takes effect after hlt begins */
	local_irq_disable();
	if (!need_resched() && !signal_pending(current)) {
		hrtimer_start(&t, ns_to_ktime(ns), HRTIMER_MODE_REL_PINNED_HARD);
#ifdef CONFIG_X86
		asm volatile("sti; hlt" ::: "memory");
		local_irq_disable();
#else
		dsb(sy);
		wfi();
#endif
	}
	local_irq_enable();
	hrtimer_cancel(&t);
	destroy_hrtimer_on_stack(&t);
	return 0;
}

static int dev_mmap(struct file *f, struct vm_area_struct *vma)
{
	if (vma->vm_flags & VM_WRITE)
		return -EPERM;
	vm_flags_clear(vma, VM_MAYWRITE);
	return remap_vmalloc_range(vma, vsoc_page, vma->vm_pgoff);
}

static const struct file_operations dev_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = dev_ioctl,
	.mmap = dev_mmap,
};

static struct miscdevice dev = {
	.minor = MISC_DYNAMIC_MINOR, .name = "vsoc", .fops = &dev_fops, .mode = 0666
};

/* ---- the description ---- */

static int bring_up(struct vsoc_machine *m)
{
	int r;

	vsoc_page->magic = VSOC_MAGIC;
	vsoc_page->version = VSOC_VERSION;
	vsoc_page->nr_cpus = m->nr_cpus;
	vsoc = m;
	r = vsoc_phys_start(m);
	if (r) {
		vsoc = NULL;		/* no probe stayed: as if nothing had been */
		return r;
	}
	r = vsoc_freq_register(m) ?: vsoc_meters_register() ?: misc_register(&dev);
	if (r)
		pr_err("half of %s is registered (%d): boot afresh\n", m->name, r);
	else
		pr_info("%s: %u clusters, %u CPUs\n", m->name, m->nr_clusters, m->nr_cpus);
	return r;
}

/* @text becomes the module's. */
static int describe(char *text)
{
	struct vsoc_machine *m;
	char *scratch;
	int r;

	if (vsoc) {
		pr_err("this machine is %s already: boot afresh\n", vsoc->name);
		return -EBUSY;
	}
	m = vzalloc(sizeof(*m));
	scratch = kstrdup(text, GFP_KERNEL);
	r = m && scratch ? vsoc_parse(scratch, m) : -ENOMEM;
	kfree(scratch);
	r = r ?: vsoc_freq_prepare(m) ?: vsoc_tasks_init() ?: bring_up(m);
	if (vsoc)
		description = text;	/* half or whole, it stays */
	else
		vfree(m);
	return r;
}

/*
 * A description may come in several writes (cat has small buffers), so it is
 * gathered per open file and taken when its last line is "end".
 */
struct gathered {
	size_t len;
	char text[MAX_TEXT];
};

static int machine_open(struct inode *inode, struct file *f)
{
	f->private_data = f->f_mode & FMODE_WRITE ? vzalloc(sizeof(struct gathered)) : NULL;
	return f->f_mode & FMODE_WRITE && !f->private_data ? -ENOMEM : 0;
}

static bool has_end(const struct gathered *g)
{
	size_t n = g->len;

	while (n && (g->text[n - 1] == '\n' || g->text[n - 1] == ' '))
		n--;
	return n < g->len && n >= 4 && !memcmp(g->text + n - 4, "\nend", 4);
}

static ssize_t machine_write(struct file *f, const char __user *from, size_t len, loff_t *pos)
{
	struct gathered *g = f->private_data;
	char *text;
	int r;

	if (len >= MAX_TEXT - g->len) {
		pr_err("machine: longer than %d bytes\n", MAX_TEXT - 1);
		return -EINVAL;
	}
	if (copy_from_user(g->text + g->len, from, len))
		return -EFAULT;
	g->len += len;
	if (!has_end(g))
		return len;
	text = kmemdup_nul(g->text, g->len, GFP_KERNEL);
	g->len = 0;
	if (!text)
		return -ENOMEM;
	mutex_lock(&vsoc_setup_lock);
	r = describe(text);
	if (description != text)
		kfree(text);
	mutex_unlock(&vsoc_setup_lock);
	return r ?: len;
}

static ssize_t machine_read(struct file *f, char __user *to, size_t len, loff_t *pos)
{
	ssize_t r = 0;

	mutex_lock(&vsoc_setup_lock);
	if (description)
		r = simple_read_from_buffer(to, len, pos, description, strlen(description));
	mutex_unlock(&vsoc_setup_lock);
	return r;
}

static int machine_release(struct inode *inode, struct file *f)
{
	struct gathered *g = f->private_data;

	if (g && g->len)
		pr_err("machine: no last line 'end': nothing done\n");
	vfree(g);
	return 0;
}

static const struct file_operations machine_fops = {
	.owner = THIS_MODULE,
	.open = machine_open,
	.read = machine_read,
	.write = machine_write,
	.release = machine_release,
};

/* ---- the rest of debugfs ---- */

static int control_open(struct inode *inode, struct file *f)
{
	return single_open(f, vsoc_control_show, NULL);
}

static ssize_t control_write(struct file *f, const char __user *from, size_t len, loff_t *pos)
{
	char *text;
	int r;

	if (!vsoc)
		return -ENODEV;
	text = len < PAGE_SIZE ? memdup_user_nul(from, len) : ERR_PTR(-EINVAL);
	if (IS_ERR(text))
		return PTR_ERR(text);
	mutex_lock(&vsoc_setup_lock);
	r = vsoc_control(text);
	mutex_unlock(&vsoc_setup_lock);
	kfree(text);
	return r ?: len;
}

static const struct file_operations control_fops = {
	.owner = THIS_MODULE,
	.open = control_open,
	.read = seq_read,
	.write = control_write,
	.llseek = seq_lseek,
	.release = single_release,
};

static int energy_uj_get(void *data, u64 *uj)
{
	if (!vsoc)
		return -ENODEV;
	*uj = div64_u64(vsoc_energy_pj(VSOC_PACKAGE), 1000000);
	return 0;
}

DEFINE_DEBUGFS_ATTRIBUTE(energy_uj_fops, energy_uj_get, NULL, "%llu\n");
DEFINE_SHOW_ATTRIBUTE(vsoc_truth);
DEFINE_SHOW_ATTRIBUTE(vsoc_tasks);

static int __init vsoc_init(void)
{
	struct dentry *dir;

	vsoc_page = vmalloc_user(PAGE_ALIGN(sizeof(*vsoc_page)));
	if (!vsoc_page)
		return -ENOMEM;
	dir = debugfs_create_dir("vsoc", NULL);
	if (IS_ERR(dir)) {
		vfree(vsoc_page);
		pr_err("no debugfs: %ld\n", PTR_ERR(dir));
		return PTR_ERR(dir);
	}
	debugfs_create_file("machine", 0600, dir, NULL, &machine_fops);
	debugfs_create_file("control", 0600, dir, NULL, &control_fops);
	debugfs_create_file("truth", 0444, dir, NULL, &vsoc_truth_fops);
	debugfs_create_file("energy_uj", 0444, dir, NULL, &energy_uj_fops);
	debugfs_create_file("tasks", 0444, dir, NULL, &vsoc_tasks_fops);
	return 0;
}
module_init(vsoc_init);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A virtual SoC with energy, for tests of CPU schedulers");
