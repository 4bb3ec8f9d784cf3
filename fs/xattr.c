/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/xattr.h"

#include <errno.h>
#include <string.h>

#include "fs/fuse.h"
#include "image/fsprobe.h"

/* Where facts go: all names, or the value of one. */
struct sink {
	const char *wanted; /* NULL: list */
	char **value;
	GString *names;
};

static void put(struct sink *s, const char *name, const char *value)
{
	if (!value)
		return;
	if (!s->wanted)
		g_string_append_len(g_string_append(s->names, XATTR_PREFIX), name,
				    (gssize)strlen(name) + 1);
	else if (!*s->value && !strcmp(s->wanted + strlen(XATTR_PREFIX), name))
		*s->value = g_strdup(value);
}

static void put_number(struct sink *s, const char *name, uint64_t value)
{
	char text[24];

	g_snprintf(text, sizeof(text), "%" G_GUINT64_FORMAT, value);
	put(s, name, text);
}

static void put_partition(struct sink *s, const struct partition_table *table,
			  const struct partition *p)
{
	put(s, "table", partition_scheme_name(table->scheme));
	put_number(s, "sector_size", table->sector_size);
	put_number(s, "number", p->number);
	put_number(s, "start", p->start);
	put_number(s, "size", p->len);
	put(s, "type", p->type);
	put(s, "type_name", p->type_name);
	put(s, "label", p->label);
	put(s, "uuid", p->uuid);
	put(s, "bootable", p->bootable ? "1" : "0");
}

/* Probing reads 4 MiB, so it is done only for who asks for one of its names, or for all. */
static int put_file_system(struct sink *s, const struct window *w)
{
	struct fsprobe fs;
	int ret;

	if (s->wanted && !g_str_has_prefix(s->wanted, XATTR_PREFIX "fs_"))
		return 0;
	ret = fsprobe_image(w->img, w->start, w->size, &fs);
	if (ret)
		return ret;
	put(s, "fs_type", fs.type);
	put(s, "fs_version", fs.version);
	put(s, "fs_label", fs.label);
	put(s, "fs_uuid", fs.uuid);
	fsprobe_clear(&fs);
	return 0;
}

static void put_image(struct sink *s, struct image *img, const struct partition_table *table)
{
	put(s, "filename", img->filename);
	put(s, "format", img->format->name);
	put_number(s, "virtual_size", img->size);
	if (img->cluster_size)
		put_number(s, "cluster_size", img->cluster_size);
	put(s, "backing_file", img->backing_name);
	put(s, "backing_format", img->backing_format);
	put(s, "table", partition_scheme_name(table->scheme));
	put(s, "table_uuid", table->uuid);
	if (table->scheme == PARTITION_GPT)
		put(s, "table_from_backup", table->from_backup ? "1" : "0");
}

static int put_disk(struct sink *s, struct tree *t, uint64_t node)
{
	const struct partition_table *table;
	struct window w;
	int ret = tree_window(t, node, &w);

	if (ret)
		return ret;
	ret = tree_partitions(t, &w, &table);
	if (!ret && node_is_partition(node))
		put_partition(s, table, tree_partition(t, &w, node));
	else if (!ret)
		put_image(s, w.img, table);
	/* A disk with a table has file systems in its partitions, not beside them. */
	if (!ret && (node_is_partition(node) || table->scheme == PARTITION_NONE))
		ret = put_file_system(s, &w);
	tree_window_put(t, &w);
	return ret;
}

static void put_snapshot(struct sink *s, const struct snapshot *snapshot)
{
	put(s, "snapshot_id", snapshot->id);
	put(s, "snapshot_name", snapshot->name);
	put_number(s, "snapshot_vm_state_size", snapshot->vm_state_size);
	put_number(s, "snapshot_vm_clock_ns", snapshot->vm_clock_nsec);
}

/*
 * By this imgtool finds the mount that holds an image: "rw" or "ro", then device:inode of each file
 * of the chain, top first; an external data file stands behind its layer's: "12:34+12:35".
 */
static void put_chain(struct sink *s, struct tree *t)
{
	g_autoptr(GString) text = g_string_new(tree_is_writable(t) ? "rw" : "ro");

	for (const struct image *img = tree_image(t); img; img = img->backing) {
		const struct file *file = img->file;

		for (unsigned i = 0; file; file = image_extra_file(img, i++)) {
			const struct stat *st = file_stat(file);

			g_string_append_printf(text, "%c%ju:%ju", i ? '+' : ' ',
					       (uintmax_t)st->st_dev, (uintmax_t)st->st_ino);
		}
	}
	put(s, "chain", text->str);
}

static int put_all(struct sink *s, struct tree *t, uint64_t node)
{
	const struct snapshot *snapshot;

	if (node == FUSE_ROOT_ID)
		put_chain(s, t);
	/* Nobody who looks for a mount is to wait for its disk. */
	if (node == FUSE_ROOT_ID && s->wanted && *s->value)
		return 0;
	snapshot = tree_snapshot(t, node);
	if (snapshot)
		put_snapshot(s, snapshot);
	return tree_node_is_disk(t, node) ? put_disk(s, t, node) : 0;
}

int xattr_get(struct tree *t, uint64_t node, const char *name, char **value)
{
	struct sink s = {.wanted = name, .value = value};
	int ret;

	*value = NULL;
	if (!g_str_has_prefix(name, XATTR_PREFIX))
		return -ENODATA;
	ret = put_all(&s, t, node);
	if (!ret && !*value)
		ret = -ENODATA;
	if (ret)
		g_clear_pointer(value, g_free);
	return ret;
}

int xattr_list(struct tree *t, uint64_t node, GString *names)
{
	struct sink s = {.names = names};

	return put_all(&s, t, node);
}
