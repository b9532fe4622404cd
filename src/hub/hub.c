#include "hub/hub.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/vec.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

// ---- the cache's place ----

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

// The length of a variable's name at text, which begins with '$': $NAME or ${NAME}. 0: no variable.
static size_t name_length(const char *text, bool braced) {
    size_t n = 0;
    const char *name = text + (braced ? 2 : 1);
    while (isalnum((unsigned char)name[n]) || name[n] == '_') n++;
    return braced && name[n] != '}' ? 0 : n;
}

// ~ at the start and $VAR, ${VAR} anywhere; a variable that is not set stays as it is written. Caller frees.
static char *expand(const char *text) {
    CharVec out = {0};
    const char *home = variable("HOME");
    if (home && text[0] == '~' && (text[1] == '/' || !text[1])) {
        vec_extend(&out, home, strlen(home));
        text++;
    }
    while (*text) {
        const bool braced = text[0] == '$' && text[1] == '{';
        const size_t n = text[0] == '$' ? name_length(text, braced) : 0;
        char *name = mem_strndup(text + (braced ? 2 : 1), n);
        const char *value = n ? getenv(name) : NULL;
        free(name);
        if (value) {
            vec_extend(&out, value, strlen(value));
            text += n + (braced ? 3 : 1);
        } else {
            vec_push(&out, *text++);
        }
    }
    vec_push(&out, '\0');
    return out.items;
}

char *hub_cache_folder(void) {
    const char *cache = variable("HF_HUB_CACHE"), *home = variable("HF_HOME"),
               *xdg = variable("XDG_CACHE_HOME");
    if (!cache) cache = variable("HUGGINGFACE_HUB_CACHE");
    if (cache) return expand(cache);
    char *unexpanded =
        home ? mem_printf("%s/hub", home) : mem_printf("%s/huggingface/hub", xdg ? xdg : "~/.cache");
    char *folder = expand(unexpanded);
    free(unexpanded);
    return folder;
}

// ---- names ----

static bool is_word(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)text[i]) && !strchr("._-", text[i])) return false;
    return n > 0 && text[0] != '.';
}

// NAME or ORG/NAME, as the Hub allows them.
static bool is_model_name(const char *name) {
    const char *slash = strchr(name, '/');
    if (!slash) return is_word(name, strlen(name));
    return is_word(name, (size_t)(slash - name)) && is_word(slash + 1, strlen(slash + 1));
}

// A revision becomes part of a path, so it must not lead out of its folder.
static bool is_revision(const char *text) {
    for (const char *part = text;; part++) {
        const size_t n = strcspn(part, "/");
        if (!is_word(part, n)) return false;
        part += n;
        if (!*part) return true;
    }
}

// "ORG/NAME" as "models--ORG--NAME"; caller frees.
static char *cache_name(const char *model) {
    const char *slash = strchr(model, '/');
    if (!slash) return mem_printf("models--%s", model);
    return mem_printf("models--%.*s--%s", (int)(slash - model), model, slash + 1);
}

// ---- looking a model up ----

// The commit that refs/REVISION names; NULL when there is no such file or it holds no plain name. Caller
// frees.
static char *read_ref(const char *folder, const char *revision) {
    char *path = mem_printf("%s/refs/%s", folder, revision), *commit = NULL;
    size_t size;
    if (file_exists(path) && !file_is_folder(path) && file_read(&commit, &size, path, NULL)) {
        commit[strcspn(commit, " \t\r\n")] = '\0';
        if (!is_word(commit, strlen(commit))) {
            free(commit);
            commit = NULL;
        }
    }
    free(path);
    return commit;
}

// The snapshots that are there, for messages: "abc, def"; caller frees.
static char *list_snapshots(const char *folder) {
    char *path = path_join(folder, "snapshots");
    StringList list = {0};
    CharVec text = {0};
    if (file_is_folder(path)) file_list(&list, path, NULL);
    for (size_t i = 0; i < list.count; i++) {
        if (i) vec_extend(&text, ", ", 2);
        vec_extend(&text, list.items[i], strlen(list.items[i]));
    }
    vec_push(&text, '\0');
    string_list_free(&list);
    free(path);
    return text.items;
}

static bool not_found(const char *model, const char *revision, const char *folder, Error *err) {
    char *there = list_snapshots(folder);
    if (*there)
        error_set(err, "%s: revision %s is not in %s, which holds %.300s; give one of them as %s@COMMIT",
                  model, revision, folder, there, model);
    else
        error_set(
            err,
            "%s: no such file or folder, and not in the Hub cache (%s); download it with `hf download %s` or "
            "give a local folder",
            model, folder, model);
    free(there);
    return false;
}

static bool find_snapshot(char **path, const char *model, const char *revision, Error *err) {
    char *cache = hub_cache_folder(), *name = cache_name(model), *folder = path_join(cache, name);
    char *commit = read_ref(folder, revision);
    char *snapshot = mem_printf("%s/snapshots/%s", folder, commit ? commit : revision);
    bool ok = file_is_folder(snapshot);
    if (ok)
        *path = snapshot;
    else
        not_found(model, revision, folder, err), free(snapshot);
    free(commit);
    free(folder);
    free(name);
    free(cache);
    return ok;
}

bool hub_resolve(char **path, const char *name, Error *err) {
    *path = NULL;
    if (file_exists(name)) {
        *path = mem_strdup(name);
        return true;
    }
    const char *at = strchr(name, '@');
    char *model = mem_strndup(name, at ? (size_t)(at - name) : strlen(name));
    const char *revision = at ? at + 1 : "main";
    bool ok;
    if (!is_model_name(model))
        ok = error_set(err, "%s: no such file or folder, and not a Hub name (ORG/NAME or ORG/NAME@REVISION)",
                       name);
    else if (!is_revision(revision))
        ok = error_set(err, "%s: \"%.100s\" is not a revision; expected a branch, tag or commit", name,
                       revision);
    else
        ok = find_snapshot(path, model, revision, err);
    free(model);
    return ok;
}
