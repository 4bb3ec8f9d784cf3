/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/tree-internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/control.h"
#include "fs/names.h"

#define VIEWS_MAX 64 /* disks kept open at a time beside those in use */

static const struct {
	const char *name;
	enum tree_leaf leaf;
} root_entries[] = {
	{"disk.raw", LEAF_DISK},       {"partitions", LEAF_PARTITIONS}, {"layers", LEAF_LAYERS},
	{"snapshots", LEAF_SNAPSHOTS}, {"info.json", LEAF_INFO},	{"map.json", LEAF_MAP},
	{"check.json", LEAF_CHECK},    {"control", LEAF_CONTROL},
};
#define SNAPSHOT_ENTRIES 2 /* of them: disk.raw and partitions */

/* Base name without its last extension: "top" of /a/top.qcow2. */
static char *layer_name(struct image *layer, unsigned depth)
{
	g_autofree char *base = g_path_get_basename(layer->filename ? layer->filename : "disk");
	char *dot = strrchr(base, '.');
	g_autofree char *name = NULL;

	if (dot && dot != base)
		*dot = '\0';
	name = name_escape(base, NAME_LEN_MAX - 20);
	return g_strdup_printf("%u-%s.raw", depth, name);
}

static void layer_clear(void *data)
{
	g_free(((struct tree_layer *)data)->name);
}

static void view_free(void *data)
{
	struct tree_view *v = data;

	partition_table_free(v->partitions);
	g_ptr_array_unref(v->retired);
	image_unref(v->img);
	g_free(v);
}

struct tree *tree_new(struct image *img, const char *snapshot, const struct tree_look *look,
		      GError **error)
{
	struct tree *t = g_new0(struct tree, 1);

	t->img = image_ref(img);
	t->look = look;
	t->layers = g_array_new(FALSE, FALSE, sizeof(struct tree_layer));
	g_array_set_clear_func(t->layers, layer_clear);
	t->views = g_hash_table_new_full(NULL, NULL, NULL, view_free);
	t->turns = g_hash_table_new(NULL, NULL);
	if (snapshot) {
		g_autoptr(GPtrArray) list = image_snapshots(img, error);
		int index = list ? image_find_snapshot(list, snapshot, error) : -1;

		t->top = index >= 0 ? image_view(img, (unsigned)index, error) : NULL;
		if (!t->top) {
			tree_free(t);
			return NULL;
		}
	} else {
		t->top = image_ref(img);
	}
	for (struct image *l = img; l; l = l->backing) {
		struct tree_layer layer = {layer_name(l, t->layers->len), l->size, 0};

		g_array_append_val(t->layers, layer);
	}
	return t;
}

void tree_free(struct tree *t)
{
	if (!t)
		return;
	g_hash_table_unref(t->views);
	g_hash_table_unref(t->turns);
	g_array_unref(t->layers);
	tree_drop_snapshot_list(t);
	if (t->numbers)
		g_array_unref(t->numbers);
	image_unref(t->top);
	image_unref(t->img);
	g_free(t);
}

struct image *tree_image(struct tree *t)
{
	return t->img;
}

bool tree_is_writable(const struct tree *t)
{
	return t->look->writable;
}

bool tree_is_scratch(const struct tree *t)
{
	return t->look->scratch;
}

/* ---- disks ---- */

static struct image *layer_image(struct tree *t, unsigned depth)
{
	struct image *l = t->img;

	while (l && depth--)
		l = l->backing;
	return l;
}

/* Makes room: the view that was idle longest goes. */
static void drop_idle_view(struct tree *t)
{
	GHashTableIter iter;
	struct tree_view *v, *oldest = NULL;

	if (g_hash_table_size(t->views) < VIEWS_MAX)
		return;
	g_hash_table_iter_init(&iter, t->views);
	while (g_hash_table_iter_next(&iter, NULL, (void **)&v))
		/* The disk's own has the table that a new one is compared with. */
		if (!v->users && v->disk != DISK_TOP && (!oldest || v->used < oldest->used))
			oldest = v;
	if (oldest)
		g_hash_table_remove(t->views, GUINT_TO_POINTER(oldest->disk));
}

/* Called with the mutex. */
static int open_view(struct tree *t, unsigned disk, struct image **img)
{
	g_autoptr(GError) error = NULL;
	int ret, index;

	if (disk == DISK_TOP) {
		*img = image_ref(t->top);
		return 0;
	}
	if (!disk_is_snapshot(disk)) {
		struct image *layer = layer_image(t, disk - DISK_LAYER_0);

		*img = layer ? image_ref(layer) : NULL;
		return layer ? 0 : -ENOENT;
	}
	ret = tree_list_snapshots(t);
	if (ret)
		return ret;
	index = tree_index_of_disk(t, disk);
	if (index < 0)
		return -ENOENT;
	*img = image_view(t->img, (unsigned)index, &error);
	if (!*img)
		image_fault(t->img, EIO, 0, "snapshot %d: %s", index, error->message);
	return *img ? 0 : -EIO;
}

static int view_get(struct tree *t, unsigned disk, struct tree_view **view)
{
	struct tree_view *v = g_hash_table_lookup(t->views, GUINT_TO_POINTER(disk));
	int ret = 0;

	if (!v) {
		co_mutex_lock(&t->opening);
		v = g_hash_table_lookup(t->views, GUINT_TO_POINTER(disk));
		if (!v) {
			struct image *img;

			ret = open_view(t, disk, &img);
			if (!ret) {
				drop_idle_view(t);
				v = g_new0(struct tree_view, 1);
				v->disk = disk;
				v->img = img;
				v->retired = g_ptr_array_new_with_free_func(
					(GDestroyNotify)partition_table_free);
				g_hash_table_insert(t->views, GUINT_TO_POINTER(disk), v);
			}
		}
		co_mutex_unlock(&t->opening);
		if (ret)
			return ret;
	}
	v->users++;
	v->used = ++t->clock;
	*view = v;
	return 0;
}

bool tree_close_view(struct tree *t, unsigned disk)
{
	struct tree_view *v = g_hash_table_lookup(t->views, GUINT_TO_POINTER(disk));

	if (v && v->users)
		return false;
	g_hash_table_remove(t->views, GUINT_TO_POINTER(disk));
	return true;
}

/* The disk that a directory or a file of it belongs to, whole. */
static int disk_window(struct tree *t, uint64_t node, struct window *w)
{
	int ret = view_get(t, node_disk(node), &w->view);

	if (ret)
		return ret;
	w->img = w->view->img;
	w->start = 0;
	w->size = w->img->size;
	return 0;
}

/* The root of a single-file mount is the disk. */
static uint64_t real_node(const struct tree *t, uint64_t node)
{
	if (t->look->single_file && node == node_make(DISK_TOP, LEAF_DIR))
		return node_make(DISK_TOP, LEAF_DISK);
	return node;
}

bool tree_node_is_disk(const struct tree *t, uint64_t node)
{
	return node_is_disk(real_node(t, node));
}

bool tree_node_is_writable(const struct tree *t, uint64_t node)
{
	return t->look->writable && t->top == t->img && node_disk(node) == DISK_TOP &&
	       tree_node_is_disk(t, node);
}

bool tree_node_changes(const struct tree *t, uint64_t node)
{
	return tree_node_is_writable(t, node) ||
	       (t->look->writable && node_disk(node) == DISK_LAYER_0);
}

int tree_window(struct tree *t, uint64_t node, struct window *w)
{
	const struct partition_table *table;
	const struct partition *p = NULL;
	int ret;

	node = real_node(t, node);
	if (!node_is_disk(node))
		return -ENOENT;
	ret = disk_window(t, node, w);
	if (ret || !node_is_partition(node))
		return ret;
	ret = tree_last_partitions(t, w, &table);
	if (!ret)
		p = partition_find(table, node_leaf(node) - LEAF_PARTITION_0);
	if (!p) {
		tree_window_put(t, w);
		return ret ? ret : -ENOENT;
	}
	w->start = p->start;
	w->size = p->len;
	return 0;
}

void tree_window_put(struct tree *t, struct window *w)
{
	struct tree_view *v = w->view;

	if (--v->users == 0)
		g_ptr_array_set_size(v->retired, 0);
	w->view = NULL;
}

/* ---- directories ---- */

uint64_t tree_parent(uint64_t dir)
{
	uint64_t root = node_make(DISK_TOP, LEAF_DIR);

	if (node_leaf(dir) == LEAF_PARTITIONS)
		return node_make(node_disk(dir), LEAF_DIR);
	if (node_leaf(dir) == LEAF_DIR && disk_is_snapshot(node_disk(dir)))
		return node_make(DISK_TOP, LEAF_SNAPSHOTS);
	return root;
}

/*
 * A layer that a commit or the disk's resizing made longer or shorter. With its write-back cache
 * the kernel keeps the size of a file that it knows, so it becomes another file.
 */
static uint64_t layer_node(struct tree *t, unsigned depth)
{
	struct tree_layer *l = &g_array_index(t->layers, struct tree_layer, depth);
	const struct image *img = layer_image(t, depth);

	if (img && img->size != l->size) {
		l->size = img->size;
		l->turn++;
	}
	return node_make(DISK_LAYER_0 + depth, LEAF_DISK) | (uint64_t)l->turn << NODE_TURN_SHIFT;
}

static int partitions_child(struct tree *t, uint64_t dir, uint64_t index, unsigned *number)
{
	const struct partition_table *table;
	struct window w;
	int ret = disk_window(t, dir, &w);

	if (ret)
		return ret;
	ret = tree_partitions(t, &w, &table);
	if (!ret && index >= table->entries->len)
		ret = -ENOENT;
	if (!ret)
		*number = ((struct partition *)g_ptr_array_index(table->entries, index))->number;
	tree_window_put(t, &w);
	return ret;
}

int tree_child(struct tree *t, uint64_t dir, uint64_t index, uint64_t *child, char buf[256])
{
	unsigned disk = node_disk(dir), number = 0;
	int ret;

	switch (node_leaf(dir)) {
	case LEAF_DIR:
		if (index >=
		    (disk_is_snapshot(disk) ? SNAPSHOT_ENTRIES : G_N_ELEMENTS(root_entries)))
			return -ENOENT;
		*child = node_make(disk, root_entries[index].leaf);
		g_strlcpy(buf, root_entries[index].name, 256);
		return 0;
	case LEAF_PARTITIONS:
		ret = partitions_child(t, dir, index, &number);
		*child = tree_partition_node(t, disk, number);
		snprintf(buf, 256, "%u.raw", number);
		return ret;
	case LEAF_LAYERS:
		if (index >= t->layers->len)
			return -ENOENT;
		*child = layer_node(t, (unsigned)index);
		g_strlcpy(buf, g_array_index(t->layers, struct tree_layer, index).name, 256);
		return 0;
	case LEAF_SNAPSHOTS:
		ret = tree_need_snapshots(t);
		if (ret)
			return ret;
		if (index >= t->snapshots->len)
			return -ENOENT;
		*child = node_make(tree_snapshot_disk(t, (unsigned)index), LEAF_DIR);
		g_strlcpy(buf, g_ptr_array_index(t->snapshot_names, index), 256);
		return 0;
	case LEAF_CONTROL:
		if (index >= control_count())
			return -ENOENT;
		*child = node_make(DISK_TOP, LEAF_CONTROL_0 + (unsigned)index);
		g_strlcpy(buf, control_name((unsigned)index), 256);
		return 0;
	default:
		return -ENOTDIR;
	}
}

static int lookup_snapshot(struct tree *t, const char *name, uint64_t *child)
{
	void *index;
	int ret = tree_need_snapshots(t);

	if (ret)
		return ret;
	if (!g_hash_table_lookup_extended(t->snapshot_index, name, NULL, &index))
		return -ENOENT;
	*child = node_make(tree_snapshot_disk(t, GPOINTER_TO_UINT(index)), LEAF_DIR);
	return 0;
}

int tree_lookup(struct tree *t, uint64_t dir, const char *name, uint64_t *child)
{
	char buf[256];
	int ret;

	if (node_leaf(dir) == LEAF_SNAPSHOTS)
		return lookup_snapshot(t, name, child);
	/* All other directories are short. */
	for (uint64_t i = 0;; i++) {
		ret = tree_child(t, dir, i, child, buf);
		if (ret || !strcmp(buf, name))
			return ret;
	}
}

/* ---- stat ---- */

static bool is_dir(uint64_t node)
{
	unsigned leaf = node_leaf(node);

	return leaf == LEAF_DIR || leaf == LEAF_CONTROL ||
	       (leaf >= LEAF_PARTITIONS && leaf <= LEAF_SNAPSHOTS);
}

/* Control files, and making snapshots, are for the user who mounts, whoever may read the disk. */
static void set_control_look(const struct tree *t, uint64_t node, struct stat *st)
{
	st->st_uid = t->look->control_uid;
	st->st_gid = t->look->control_gid;
	if (node_is_control(node))
		st->st_mode = S_IFREG | (t->look->writable ? 0600 : 0400);
	else if (t->look->writable)
		st->st_mode |= 0200;
}

/* A snapshot's date for what belongs to one, else the image file's (a layer's own). */
static void set_times(struct tree *t, uint64_t node, struct stat *st)
{
	const struct snapshot *s = tree_snapshot(t, node);
	unsigned disk = node_disk(node);
	struct image *img = NULL;

	if (s) {
		st->st_mtim.tv_sec = s->date_sec;
		st->st_mtim.tv_nsec = s->date_nsec < 1000000000 ? s->date_nsec : 0;
	} else {
		if (disk >= DISK_LAYER_0 && !disk_is_snapshot(disk))
			img = layer_image(t, disk - DISK_LAYER_0);
		st->st_mtim = file_stat((img ? img : t->img)->file)->st_mtim;
	}
	st->st_atim = st->st_ctim = st->st_mtim;
}

int tree_stat(struct tree *t, uint64_t node, struct stat *st)
{
	uint64_t real = real_node(t, node);
	struct window w;
	int ret;

	memset(st, 0, sizeof(*st));
	st->st_ino = node;
	st->st_uid = t->look->uid;
	st->st_gid = t->look->gid;
	st->st_blksize = 1 << 20;
	st->st_nlink = is_dir(real) ? 2 : 1;
	st->st_mode = is_dir(real) ? S_IFDIR | t->look->dir_mode : S_IFREG | t->look->file_mode;
	if (node_is_control(node) || node_leaf(node) == LEAF_SNAPSHOTS)
		set_control_look(t, node, st);
	if (disk_is_snapshot(node_disk(node)) && !tree_snapshot(t, node))
		return -ENOENT;
	if (node_is_disk(real)) {
		ret = tree_window(t, real, &w);
		if (ret)
			return ret;
		st->st_size = (off_t)w.size;
		if (tree_node_is_writable(t, node))
			st->st_mode = S_IFREG | t->look->disk_mode;
		tree_window_put(t, &w);
	}
	set_times(t, node, st);
	return 0;
}
