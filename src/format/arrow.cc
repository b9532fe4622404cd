// The project's one C++ file: Parquet and Arrow IPC through Apache Arrow. Arrow's exceptions and statuses end
// here and become an Error; what goes out is Arrow's C data interface, which arrow_columns.c reads.
extern "C" {
#include "base/error.h"
#include "base/file.h"
#include "format/arrow.h"
#include "format/arrow_batch.h"
}

#include <arrow/api.h>
#include <arrow/c/bridge.h>
#include <arrow/compute/cast.h>
#include <arrow/io/file.h>
#include <arrow/io/memory.h>
#include <arrow/ipc/api.h>
#include <arrow/util/config.h>
#include <parquet/arrow/reader.h>
#include <parquet/arrow/writer.h>
#include <parquet/exception.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <utility>
#include <vector>

using arrow::Status;

// ---- memory ----

// The C library's heap. Arrow's own choice keeps a heap of its own for each thread that reads, which for
// small row groups is several times what they hold. Some of Arrow takes no pool and asks the environment, at
// its first use, which it should be.
static const int default_pool = setenv("ARROW_DEFAULT_MEMORY_POOL", "system", 0);

// Large blocks in pages of their own, so that a column that grows, or is cut to its size at its end, is moved
// by the kernel: the heap would copy it, for it can align or resize, not both. Smaller ones from the heap.
// What is counted is what is filled: a block that grows by doubling was full, and becomes no memory behind
// that until it is.
class ColumnPool final : public arrow::MemoryPool {
  public:
    using MemoryPool::Allocate;
    using MemoryPool::Free;
    using MemoryPool::Reallocate;

    Status Allocate(int64_t size, int64_t alignment, uint8_t **out) override {
        if (is_large(size)) {
            void *pages =
                mmap(nullptr, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (pages == MAP_FAILED) return no_memory(size);
            *out = static_cast<uint8_t *>(pages);
        } else {
            ARROW_RETURN_NOT_OK(heap_->Allocate(size, alignment, out));
        }
        stats_.DidAllocateBytes(size);
        return Status::OK();
    }
    Status Reallocate(int64_t old_size, int64_t size, int64_t alignment, uint8_t **block) override {
        if (is_large(old_size) && is_large(size)) return move_pages(old_size, size, block);
        uint8_t *other;
        ARROW_RETURN_NOT_OK(Allocate(size, alignment, &other));
        memcpy(other, *block, (size_t)std::min(old_size, size));
        Free(*block, old_size, alignment);
        *block = other;
        return Status::OK();
    }
    void Free(uint8_t *block, int64_t size, int64_t alignment) override {
        {
            std::lock_guard<std::mutex> guard(lock_);
            stats_.DidFreeBytes(forget_filled(block, size));
        }
        if (is_large(size))
            munmap(block, (size_t)size);
        else
            heap_->Free(block, size, alignment);
    }

    int64_t bytes_allocated() const override { return stats_.bytes_allocated(); }
    int64_t max_memory() const override { return stats_.max_memory(); }
    int64_t total_bytes_allocated() const override { return stats_.total_bytes_allocated(); }
    int64_t num_allocations() const override { return stats_.num_allocations(); }
    std::string backend_name() const override { return "pages"; }

  private:
    static bool is_large(int64_t size) { return size >= 128 << 10; } // as mem_settle's
    static Status no_memory(int64_t size) {
        return Status::OutOfMemory("out of memory: ", size, " bytes were asked for");
    }
    Status move_pages(int64_t old_size, int64_t size, uint8_t **block) {
        std::lock_guard<std::mutex> guard(lock_);
        void *pages = mremap(*block, (size_t)old_size, (size_t)size, MREMAP_MAYMOVE);
        if (pages == MAP_FAILED) return no_memory(size);
        const int64_t filled = std::min(old_size, size);
        stats_.DidReallocateBytes(forget_filled(*block, old_size), filled);
        *block = static_cast<uint8_t *>(pages);
        if (filled < size) filled_[*block] = filled;
        return Status::OK();
    }
    int64_t forget_filled(uint8_t *block, int64_t size) { // how many they were
        const auto found = filled_.find(block);
        if (found == filled_.end()) return size;
        const int64_t filled = found->second;
        filled_.erase(found);
        return filled;
    }

    arrow::MemoryPool *heap_ = arrow::system_memory_pool();
    arrow::internal::MemoryPoolStats stats_;
    std::mutex lock_;
    std::map<uint8_t *, int64_t> filled_; // of blocks that are larger than that
};

static arrow::MemoryPool *memory() {
    static auto *pool = new ColumnPool; // for ever: batches may outlive what the end of main destroys
    (void)default_pool;
    return pool;
}

size_t arrow_memory(size_t *most) {
    *most = (size_t)memory()->max_memory();
    return (size_t)memory()->bytes_allocated();
}

// Runs body, which returns an arrow::Status, and turns whatever goes wrong into "where: message".
template <typename Body> static bool guarded(Error *err, const std::string &where, Body body) {
    std::string message;
    try {
        Status status = body();
        if (status.ok()) return true;
        message = status.message();
    } catch (const std::bad_alloc &) {
        message = "out of memory";
    } catch (const std::exception &e) {
        message = e.what();
    } catch (...) {
        message = "unknown failure";
    }
    for (char &c : message)
        if (c == '\n') c = ' ';
    return error_set(err, "%s: %s", where.c_str(), message.c_str());
}

// ---- columns in the form that arrow_columns.c knows ----

// Dictionaries, extensions, views and fixed sizes become their plain forms; half floats and booleans numbers.
static std::shared_ptr<arrow::DataType> plain_type(const std::shared_ptr<arrow::DataType> &type) {
    auto item = [&] { return type->field(0)->WithType(plain_type(type->field(0)->type())); };
    switch (type->id()) {
    case arrow::Type::DICTIONARY:
        return plain_type(static_cast<const arrow::DictionaryType &>(*type).value_type());
    case arrow::Type::EXTENSION:
        return plain_type(static_cast<const arrow::ExtensionType &>(*type).storage_type());
    case arrow::Type::STRING_VIEW:
        return arrow::large_utf8();
    case arrow::Type::BINARY_VIEW:
        return arrow::large_binary();
    case arrow::Type::FIXED_SIZE_BINARY:
        return arrow::binary();
    case arrow::Type::BOOL:
        return arrow::uint8();
    case arrow::Type::HALF_FLOAT:
        return arrow::float32();
    case arrow::Type::LIST:
    case arrow::Type::FIXED_SIZE_LIST:
    case arrow::Type::LIST_VIEW:
        return arrow::list(item());
    case arrow::Type::LARGE_LIST:
    case arrow::Type::LARGE_LIST_VIEW:
        return arrow::large_list(item());
    case arrow::Type::STRUCT: {
        arrow::FieldVector fields;
        for (const auto &field : type->fields()) fields.push_back(field->WithType(plain_type(field->type())));
        return arrow::struct_(fields);
    }
    default:
        return type;
    }
}

// Lists from list views: Arrow 26's cast between them leaves the last offset out.
static arrow::Result<std::shared_ptr<arrow::ChunkedArray>>
without_views(const std::shared_ptr<arrow::ChunkedArray> &column) {
    arrow::ArrayVector chunks;
    auto *pool = memory();
    for (const auto &chunk : column->chunks()) {
        auto list = arrow::Result<std::shared_ptr<arrow::Array>>(chunk);
        if (chunk->type_id() == arrow::Type::LIST_VIEW)
            list = arrow::ListArray::FromListView(static_cast<const arrow::ListViewArray &>(*chunk), pool);
        if (chunk->type_id() == arrow::Type::LARGE_LIST_VIEW)
            list = arrow::LargeListArray::FromListView(static_cast<const arrow::LargeListViewArray &>(*chunk),
                                                       pool);
        ARROW_RETURN_NOT_OK(list);
        chunks.push_back(*list);
    }
    return chunks.empty() ? column : std::make_shared<arrow::ChunkedArray>(chunks);
}

// A nested type with other fields; any other type as it is.
static std::shared_ptr<arrow::DataType> with_fields(const std::shared_ptr<arrow::DataType> &type,
                                                    const arrow::FieldVector &fields) {
    switch (type->id()) {
    case arrow::Type::LIST:
        return arrow::list(fields[0]);
    case arrow::Type::LARGE_LIST:
        return arrow::large_list(fields[0]);
    case arrow::Type::FIXED_SIZE_LIST:
        return arrow::fixed_size_list(fields[0],
                                      static_cast<const arrow::FixedSizeListType &>(*type).list_size());
    case arrow::Type::LIST_VIEW:
        return arrow::list_view(fields[0]);
    case arrow::Type::LARGE_LIST_VIEW:
        return arrow::large_list_view(fields[0]);
    case arrow::Type::STRUCT:
        return arrow::struct_(fields);
    default:
        return type;
    }
}

// The same memory with text seen as bytes, for validation only.
static std::shared_ptr<arrow::ArrayData> text_as_bytes(const arrow::ArrayData &data) {
    auto out = data.Copy();
    arrow::FieldVector fields;
    for (size_t i = 0; i < data.child_data.size(); i++) {
        out->child_data[i] = text_as_bytes(*data.child_data[i]);
        fields.push_back(data.type->field((int)i)->WithType(out->child_data[i]->type));
    }
    out->type = with_fields(data.type, fields);
    if (data.dictionary) {
        out->dictionary = text_as_bytes(*data.dictionary);
        out->type = arrow::dictionary(static_cast<const arrow::DictionaryType &>(*data.type).index_type(),
                                      out->dictionary->type);
    }
    if (data.type->id() == arrow::Type::STRING) out->type = arrow::binary();
    if (data.type->id() == arrow::Type::LARGE_STRING) out->type = arrow::large_binary();
    if (data.type->id() == arrow::Type::STRING_VIEW) out->type = arrow::binary_view();
    if (out->type->id() == arrow::Type::BINARY_VIEW) { // Arrow 26's cast follows the views of nulls as well
        out->buffers[0] = nullptr;
        out->null_count = 0;
    }
    return out;
}

// Checks every offset and dictionary index, for the bytes may be hostile and what follows trusts them. Text
// that is not UTF-8 is the business of its row alone (data/sample.c), not of the whole group.
static Status validate(const arrow::ChunkedArray &column) {
    for (const auto &chunk : column.chunks()) {
        ARROW_RETURN_NOT_OK(chunk->Validate()); // as many children as the type has, before they are walked
        ARROW_RETURN_NOT_OK(arrow::MakeArray(text_as_bytes(*chunk->data()))->ValidateFull());
    }
    return Status::OK();
}

// Validates, and casts what is not in its plain form. Columns that are stay where they lie.
static arrow::Result<std::shared_ptr<arrow::RecordBatch>> plain_batch(std::shared_ptr<arrow::Table> table) {
    ARROW_RETURN_NOT_OK(table->Validate());
    for (const auto &column : table->columns()) ARROW_RETURN_NOT_OK(validate(*column));
    for (int i = 0; i < table->num_columns(); i++) {
        auto field = table->schema()->field(i);
        auto type = plain_type(field->type());
        if (type->Equals(field->type())) continue;
        ARROW_ASSIGN_OR_RAISE(auto column, without_views(table->column(i)));
        arrow::compute::ExecContext context(memory());
        ARROW_ASSIGN_OR_RAISE(
            auto cast, arrow::compute::Cast(column, type, arrow::compute::CastOptions::Safe(), &context));
        ARROW_RETURN_NOT_OK(validate(*cast.chunked_array()));
        ARROW_ASSIGN_OR_RAISE(table, table->SetColumn(i, field->WithType(type), cast.chunked_array()));
    }
    return table->CombineChunksToBatch(memory());
}

static bool is_wanted(const std::string &name, const char *const *columns, size_t n_columns) {
    bool wanted = !columns;
    for (size_t k = 0; k < n_columns && !wanted; k++) wanted = name == columns[k];
    return wanted;
}

// Fills a RecordBatch with what body makes of it; path and what name it in an error. decoded: its rows are
// not the file's own memory.
template <typename Body>
static bool read_batch(RecordBatch **out, const std::string &path, const std::string &what, bool decoded,
                       Error *err, Body body) {
    *out = nullptr;
    auto *batch = static_cast<RecordBatch *>(calloc(1, sizeof(RecordBatch)));
    if (!batch || !(batch->path = strdup(path.c_str()))) {
        record_batch_free(batch);
        return error_set(err, "%s: out of memory", path.c_str());
    }
    bool ok = guarded(err, path + what, [&] {
        std::shared_ptr<arrow::RecordBatch> rows;
        ARROW_RETURN_NOT_OK(body(&rows));
        return arrow::ExportRecordBatch(*rows, &batch->array, &batch->schema);
    });
    if (ok && decoded) record_batch_compact(batch);
    if (ok)
        *out = batch;
    else
        record_batch_free(batch);
    return ok;
}

// No rows of the wanted columns of a schema.
static Status empty_batch(std::shared_ptr<arrow::RecordBatch> *out, const arrow::Schema &schema,
                          const char *const *columns, size_t n_columns) {
    arrow::FieldVector fields;
    for (const auto &field : schema.fields())
        if (is_wanted(field->name(), columns, n_columns))
            fields.push_back(field->WithType(plain_type(field->type())));
    return arrow::RecordBatch::MakeEmpty(arrow::schema(fields), memory()).Value(out);
}

static Status wrong_count(int64_t found, int64_t promised) {
    return Status::Invalid("it holds ", found, " rows, but ", promised,
                           " are announced; the file is damaged: copy it again");
}

// Whether a file that has `bytes` for them can hold so many rows, however well it is compressed: what follows
// takes memory for every row announced.
static bool is_possible(int64_t rows, int64_t bytes) {
    return rows >= 0 && rows / 1024 <= bytes;
}

static Status impossible_count(int64_t rows, int64_t bytes) {
    return Status::Invalid(rows, " rows are announced for ", bytes,
                           " bytes; the file is damaged: copy it again");
}

// ---- bytes from elsewhere ----

class RangesFile final : public arrow::io::RandomAccessFile {
  public:
    explicit RangesFile(ByteRanges ranges) : ranges_(ranges) {}
    ~RangesFile() override { ranges_.close(ranges_.state); }

    Status Close() override {
        closed_ = true;
        return Status::OK();
    }
    bool closed() const override { return closed_; }
    arrow::Result<int64_t> Tell() const override { return (int64_t)at_; }
    arrow::Result<int64_t> GetSize() override { return (int64_t)ranges_.size; }
    Status Seek(int64_t at) override {
        if (at < 0 || (size_t)at > ranges_.size) return Status::IOError("there is no byte ", at);
        at_ = (size_t)at;
        return Status::OK();
    }
    arrow::Result<int64_t> Read(int64_t n, void *out) override {
        Error err;
        size_t size = std::min((size_t)std::max<int64_t>(n, 0), ranges_.size - at_);
        if (size > 0 && !ranges_.read(ranges_.state, out, at_, size, &err)) return Status::IOError(err.text);
        at_ += size;
        return (int64_t)size;
    }
    arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t n) override {
        n = std::min(std::max<int64_t>(n, 0), (int64_t)(ranges_.size - at_));
        ARROW_ASSIGN_OR_RAISE(auto buffer, arrow::AllocateBuffer(n, memory()));
        ARROW_RETURN_NOT_OK(Read(n, buffer->mutable_data()));
        return std::shared_ptr<arrow::Buffer>(std::move(buffer));
    }

  private:
    ByteRanges ranges_;
    size_t at_ = 0;
    bool closed_ = false;
};

// ---- Parquet ----

// Rows of one row group that are read together: all of them unless they are too many bytes.
struct Part {
    int group;
    int64_t first, rows, step; // step: rows of each part of this row group but the last
};

struct ParquetReader {
    std::string path;
    std::unique_ptr<parquet::arrow::FileReader> file;
    std::shared_ptr<parquet::FileMetaData> footer;
    std::vector<Part> parts;
    // The row group that is being read in parts: where it stands, and with which leaves.
    std::unique_ptr<arrow::RecordBatchReader> stream;
    int stream_group = -1;
    int64_t stream_row = 0;
    std::vector<int> stream_leaves;
};

// file_size bounds what a damaged footer may claim: pages a thousand times larger than it are not believed.
static Status add_parts(ParquetReader *r, int group, int64_t file_size, size_t part_bytes) {
    auto g = r->footer->RowGroup(group);
    int64_t rows = g->num_rows();
    int64_t bytes = std::clamp<int64_t>(g->total_byte_size(), 0, file_size * 1024);
    if (!is_possible(rows, file_size)) return impossible_count(rows, file_size);
    int64_t parts = std::max<int64_t>(bytes / (int64_t)part_bytes + (bytes % (int64_t)part_bytes > 0), 1);
    int64_t step = std::max<int64_t>(rows / parts + (rows % parts > 0), 1);
    int64_t first = 0;
    do {
        r->parts.push_back({group, first, std::min(step, rows - first), step});
        first += step;
    } while (first < rows);
    return Status::OK();
}

// Buffered and without prefetching, so that memory holds the decoded row group and little of the file.
static Status open_file(ParquetReader *r, std::shared_ptr<arrow::io::RandomAccessFile> source,
                        size_t part_bytes) {
    parquet::ReaderProperties properties(memory());
    properties.enable_buffered_stream();
    properties.set_buffer_size(1 << 20);
    parquet::ArrowReaderProperties arrow_properties;
    arrow_properties.set_pre_buffer(false);
    parquet::arrow::FileReaderBuilder builder;
    ARROW_RETURN_NOT_OK(builder.Open(source, properties));
    ARROW_ASSIGN_OR_RAISE(r->file, builder.memory_pool(memory())->properties(arrow_properties)->Build());
    r->footer = r->file->parquet_reader()->metadata();
    ARROW_ASSIGN_OR_RAISE(int64_t size, source->GetSize());
    for (int i = 0; i < r->footer->num_row_groups(); i++)
        ARROW_RETURN_NOT_OK(add_parts(r, i, size, part_bytes));
    return Status::OK();
}

static const size_t largest_part = (size_t)1 << 30;

// open: gives the file to read from.
template <typename Open>
static bool open_parquet(ParquetReader **out, const char *path, size_t part_bytes, Error *err, Open open) {
    *out = nullptr;
    return guarded(err, path, [&] {
        auto r = std::make_unique<ParquetReader>();
        r->path = path;
        ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::io::RandomAccessFile> source, open());
        ARROW_RETURN_NOT_OK(open_file(r.get(), source, std::max<size_t>(part_bytes, 1)));
        *out = r.release();
        return Status::OK();
    });
}

bool parquet_open_in_parts(ParquetReader **out, const char *path, size_t part_bytes, Error *err) {
    return open_parquet(out, path, part_bytes, err,
                        [&] { return arrow::io::ReadableFile::Open(path, memory()); });
}

bool parquet_open(ParquetReader **out, const char *path, Error *err) {
    return parquet_open_in_parts(out, path, largest_part, err);
}

bool parquet_open_ranges(ParquetReader **out, const char *name, ByteRanges ranges, Error *err) {
    auto file = std::make_shared<RangesFile>(ranges);
    return open_parquet(out, name, largest_part, err,
                        [&] { return arrow::Result<std::shared_ptr<RangesFile>>(file); });
}

void parquet_close(ParquetReader *r) {
    delete r;
}

size_t parquet_row_groups(const ParquetReader *r) {
    return r->parts.size();
}

size_t parquet_rows(const ParquetReader *r, size_t row_group) {
    return (size_t)r->parts[row_group].rows;
}

size_t parquet_bytes(const ParquetReader *r, size_t row_group) {
    const Part &part = r->parts[row_group];
    auto group = r->footer->RowGroup(part.group);
    double share = (double)part.rows / (double)std::max<int64_t>(group->num_rows(), 1);
    return (size_t)((double)std::max<int64_t>(group->total_byte_size(), 0) * share);
}

// The leaves of the file that belong to the named columns; nested columns have several.
static std::vector<int> leaves_of(const ParquetReader *r, const char *const *columns, size_t n_columns) {
    std::vector<int> leaves;
    for (int i = 0; i < r->footer->num_columns(); i++)
        if (is_wanted(r->footer->schema()->GetColumnRoot(i)->name(), columns, n_columns)) leaves.push_back(i);
    return leaves;
}

// The next n rows of the stream, which may come in several pieces.
static arrow::Result<std::shared_ptr<arrow::Table>> stream_rows(ParquetReader *r, int64_t n) {
    arrow::RecordBatchVector pieces;
    for (int64_t found = 0; found < n; found += pieces.back()->num_rows()) {
        std::shared_ptr<arrow::RecordBatch> piece;
        ARROW_RETURN_NOT_OK(r->stream->ReadNext(&piece));
        if (!piece) return wrong_count(r->stream_row + found, r->stream_row + n);
        pieces.push_back(piece);
    }
    r->stream_row += n;
    return arrow::Table::FromRecordBatches(r->stream->schema(), pieces);
}

// A part of a row group. Pages can only be decoded one after another: parts in order cost nothing more,
// another order decodes the parts before once more.
static arrow::Result<std::shared_ptr<arrow::Table>> read_part(ParquetReader *r, const Part &part,
                                                              const std::vector<int> &leaves) {
    if (!r->stream || r->stream_group != part.group || r->stream_row > part.first ||
        r->stream_leaves != leaves) {
        r->file->set_batch_size(part.step);
        ARROW_ASSIGN_OR_RAISE(r->stream, r->file->GetRecordBatchReader({part.group}, leaves));
        r->stream_group = part.group, r->stream_row = 0, r->stream_leaves = leaves;
    }
    while (r->stream_row < part.first) ARROW_RETURN_NOT_OK(stream_rows(r, part.step));
    return stream_rows(r, part.rows);
}

static Status read_group(std::shared_ptr<arrow::RecordBatch> *out, ParquetReader *r, const Part &part,
                         const std::vector<int> &leaves) {
    bool whole = part.rows == r->footer->RowGroup(part.group)->num_rows();
    auto read = whole ? r->file->ReadRowGroup(part.group, leaves) : read_part(r, part, leaves);
    if (!read.ok()) r->stream.reset();
    ARROW_ASSIGN_OR_RAISE(auto table, std::move(read));
    ARROW_ASSIGN_OR_RAISE(*out, plain_batch(table));
    return (*out)->num_rows() == part.rows ? Status::OK() : wrong_count((*out)->num_rows(), part.rows);
}

bool parquet_read(RecordBatch **out, ParquetReader *r, size_t row_group, const char *const *columns,
                  size_t n_columns, Error *err) {
    *out = nullptr;
    if (row_group >= r->parts.size())
        return error_set(err, "%s: row group %zu asked for, the file has %zu", r->path.c_str(), row_group,
                         r->parts.size());
    return read_batch(out, r->path, ": row group " + std::to_string(row_group), true, err, [&](auto *rows) {
        return read_group(rows, r, r->parts[row_group], leaves_of(r, columns, n_columns));
    });
}

bool parquet_schema(RecordBatch **out, ParquetReader *r, const char *const *columns, size_t n_columns,
                    Error *err) {
    return read_batch(out, r->path, "", false, err, [&](auto *rows) {
        std::shared_ptr<arrow::Schema> schema;
        ARROW_RETURN_NOT_OK(r->file->GetSchema(&schema));
        return empty_batch(rows, *schema, columns, n_columns);
    });
}

// ---- Arrow IPC ----

// A mapped file as a buffer. Slices of it, which is what columns become, keep the map.
class MappedFile final : public arrow::Buffer {
  public:
    explicit MappedFile(FileMap map) : Buffer(map.bytes, (int64_t)map.size), map_(map) {}
    ~MappedFile() override { file_unmap(&map_); }

  private:
    FileMap map_;
};

// Where a message lies; its body follows its metadata.
struct Message {
    int64_t offset;
    int32_t metadata;
    int64_t body, rows;
    bool compressed;
    size_t dictionaries; // how many of the file's dictionary messages come before it
};

struct ArrowFile {
    std::string path;
    std::shared_ptr<arrow::io::RandomAccessFile> source;
    int64_t size = 0;
    std::shared_ptr<arrow::Schema> schema;
    Message schema_message;
    std::vector<Message> dictionaries, batches;
};

// Hands out some of a file's messages, so that Arrow's stream reader sees a stream of just these.
class SomeMessages final : public arrow::ipc::MessageReader {
  public:
    SomeMessages(const ArrowFile *file, std::vector<Message> messages) : file_(file), messages_(messages) {}

    arrow::Result<std::unique_ptr<arrow::ipc::Message>> ReadNextMessage() override {
        if (next_ == messages_.size()) return nullptr;
        const Message &m = messages_[next_++];
        ARROW_ASSIGN_OR_RAISE(auto metadata, file_->source->ReadAt(m.offset, m.metadata));
        ARROW_ASSIGN_OR_RAISE(auto body, file_->source->ReadAt(m.offset + m.metadata, m.body));
        return arrow::ipc::Message::Open(metadata, body);
    }

  private:
    const ArrowFile *file_;
    std::vector<Message> messages_;
    size_t next_ = 0;
};

// Field k of a flatbuffers table that Arrow has verified; NULL when it is absent.
static const uint8_t *table_field(const void *table, size_t k) {
    const uint8_t *at = static_cast<const uint8_t *>(table);
    int32_t back;
    uint16_t size, offset;
    memcpy(&back, at, sizeof back);
    memcpy(&size, at - back, sizeof size);
    if (size < 4 + 2 * (k + 1)) return nullptr;
    memcpy(&offset, at - back + 4 + 2 * k, sizeof offset);
    return offset ? at + offset : nullptr;
}

// A RecordBatch message: field 0 is its length, field 3 its compression (format/Message.fbs).
static void describe_batch(Message *m, const arrow::ipc::Message &message) {
    const uint8_t *length = table_field(message.header(), 0);
    if (length) memcpy(&m->rows, length, sizeof m->rows);
    m->compressed = table_field(message.header(), 3) != nullptr;
}

static Status truncated(int64_t at, int64_t n, int64_t size) {
    return Status::Invalid("the message at byte ", at, " needs ", n, " bytes, but the file ends at ", size,
                           "; the file is truncated: copy it again");
}

static Status not_arrow() {
    return Status::Invalid("it does not begin with a schema; expected an Arrow stream or file");
}

// The message at *at, of which only the metadata is read, and moves *at behind it. NULL at the end of the
// stream, which may or may not be marked.
static arrow::Result<std::unique_ptr<arrow::ipc::Message>> next_message(const ArrowFile &f, int64_t *at,
                                                                        Message *m) {
    uint32_t prefix[2] = {0, 0}; // a mark and the length; the length alone in files older than 2019
    int64_t left = f.size - *at;
    if (left == 0) return nullptr;
    ARROW_ASSIGN_OR_RAISE(auto head, f.source->ReadAt(*at, std::min<int64_t>(left, sizeof prefix)));
    memcpy(prefix, head->data(), (size_t)head->size());
    int64_t skip = prefix[0] == UINT32_MAX ? 8 : 4, length = prefix[skip / 4 - 1];
    if (left < skip) return truncated(*at, skip, f.size);
    if (length == 0) return nullptr;
    if (*at == 0 && skip == 4 && length > left) return not_arrow();
    if (length > left - skip || length > INT32_MAX) return truncated(*at, skip + length, f.size);
    *m = {*at + skip, (int32_t)length, 0, 0, false, f.dictionaries.size()};
    ARROW_ASSIGN_OR_RAISE(auto metadata, f.source->ReadAt(m->offset, length));
    ARROW_ASSIGN_OR_RAISE(auto message, arrow::ipc::Message::Open(metadata, nullptr));
    m->body = message->body_length();
    if (m->body < 0 || m->body > left - skip - length) return truncated(*at, m->body, f.size);
    *at = m->offset + m->metadata + m->body;
    return message;
}

static Status index_messages(ArrowFile *f, int64_t at) {
    Message m;
    ARROW_ASSIGN_OR_RAISE(auto message, next_message(*f, &at, &m));
    if (!message || message->type() != arrow::ipc::MessageType::SCHEMA) return not_arrow();
    arrow::ipc::DictionaryMemo memo;
    ARROW_ASSIGN_OR_RAISE(f->schema, arrow::ipc::ReadSchema(*message, &memo));
    f->schema_message = m;
    for (;;) {
        ARROW_ASSIGN_OR_RAISE(message, next_message(*f, &at, &m));
        if (!message) return Status::OK();
        if (message->type() == arrow::ipc::MessageType::DICTIONARY_BATCH) {
            f->dictionaries.push_back(m);
        } else if (message->type() == arrow::ipc::MessageType::RECORD_BATCH) {
            if (!message->header())
                return Status::Invalid("the message at byte ", m.offset, " says nothing of its rows");
            describe_batch(&m, *message);
            if (!is_possible(m.rows, m.body)) return impossible_count(m.rows, m.body);
            f->batches.push_back(m);
        } else {
            return Status::Invalid("the message at byte ", m.offset, " is neither rows nor a dictionary");
        }
    }
}

// Finds the messages of a stream, or of a file, which is a stream between two marks.
static Status open_arrow(ArrowFile *f, const std::string &path,
                         std::shared_ptr<arrow::io::RandomAccessFile> source) {
    static const std::string magic = "ARROW1";
    f->path = path;
    f->source = source;
    ARROW_ASSIGN_OR_RAISE(f->size, source->GetSize());
    if (f->size == 0) return Status::Invalid("the file is empty; copy it again");
    ARROW_ASSIGN_OR_RAISE(auto head, source->ReadAt(0, (int64_t)magic.size()));
    if (head->ToString() != magic) return index_messages(f, 0);
    ARROW_ASSIGN_OR_RAISE(auto tail, source->ReadAt(f->size - (int64_t)magic.size(), (int64_t)magic.size()));
    if (f->size < 16 || tail->ToString() != magic)
        return Status::Invalid("the file has no end mark; it is truncated: copy it again");
    return index_messages(f, 8);
}

static Status open_mapped(ArrowFile *f, const std::string &path) {
    Error err;
    FileMap map;
    if (!file_map(&map, path.c_str(), &err)) return Status::IOError(err.text + path.size() + 2);
    return open_arrow(f, path, std::make_shared<arrow::io::BufferReader>(std::make_shared<MappedFile>(map)));
}

// The wanted columns of batch i. Memory that is mapped is not copied.
static Status read_arrow(std::shared_ptr<arrow::RecordBatch> *out, const ArrowFile &f, size_t i,
                         const char *const *columns, size_t n_columns) {
    const Message &m = f.batches[i];
    auto options = arrow::ipc::IpcReadOptions::Defaults();
    options.use_threads = false;
    options.memory_pool = memory();
    options.ensure_alignment = arrow::ipc::Alignment::kDataTypeSpecificAlignment;
    for (int k = 0; k < f.schema->num_fields(); k++)
        if (is_wanted(f.schema->field(k)->name(), columns, n_columns)) options.included_fields.push_back(k);
    if (options.included_fields.empty()) {
        *out = arrow::RecordBatch::Make(arrow::schema({}), m.rows, arrow::ArrayVector());
        return Status::OK();
    }
    std::vector<Message> messages = {f.schema_message};
    messages.insert(messages.end(), f.dictionaries.begin(),
                    f.dictionaries.begin() + (std::ptrdiff_t)m.dictionaries);
    messages.push_back(m);
    ARROW_ASSIGN_OR_RAISE(auto stream, arrow::ipc::RecordBatchStreamReader::Open(
                                           std::make_unique<SomeMessages>(&f, messages), options));
    std::shared_ptr<arrow::RecordBatch> batch;
    ARROW_RETURN_NOT_OK(stream->ReadNext(&batch));
    if (!batch || batch->num_rows() != m.rows) return wrong_count(batch ? batch->num_rows() : 0, m.rows);
    ARROW_ASSIGN_OR_RAISE(auto table, arrow::Table::FromRecordBatches({batch}));
    return plain_batch(table).Value(out);
}

enum { GATHERED_ROWS = 100 }; // in a group of an indexed reader

struct ArrowReader {
    std::string path;
    std::vector<ArrowFile> files;
    std::vector<std::pair<size_t, size_t>> batches; // file and number in it, of those with rows
    std::vector<int64_t> ends;                      // rows up to the end of each batch
    // Indexed only: rows in their order, and the batches seen so far that lie in mapped memory, with the
    // columns they were read with.
    bool indexed = false;
    std::vector<uint64_t> order;
    std::map<size_t, std::shared_ptr<arrow::RecordBatch>> kept;
    std::vector<std::string> kept_columns;
};

static void add_file(ArrowReader *r, ArrowFile f) {
    for (size_t i = 0; i < f.batches.size(); i++) {
        if (f.batches[i].rows == 0) continue;
        r->batches.emplace_back(r->files.size(), i);
        r->ends.push_back((r->ends.empty() ? 0 : r->ends.back()) + f.batches[i].rows);
    }
    r->files.push_back(std::move(f));
}

// open: fills an ArrowFile.
template <typename Open> static bool open_reader(ArrowReader **out, const char *path, Error *err, Open open) {
    *out = nullptr;
    return guarded(err, path, [&] {
        ArrowFile f;
        auto r = std::make_unique<ArrowReader>();
        r->path = path;
        ARROW_RETURN_NOT_OK(open(&f));
        add_file(r.get(), std::move(f));
        *out = r.release();
        return Status::OK();
    });
}

bool arrow_open(ArrowReader **out, const char *path, Error *err) {
    return open_reader(out, path, err, [&](ArrowFile *f) { return open_mapped(f, path); });
}

bool arrow_open_ranges(ArrowReader **out, const char *name, ByteRanges ranges, Error *err) {
    auto file = std::make_shared<RangesFile>(ranges);
    return open_reader(out, name, err, [&](ArrowFile *f) { return open_arrow(f, name, file); });
}

// Appends the one column of an indices file.
static Status read_indices(std::vector<uint64_t> *order, const std::string &path, uint64_t rows) {
    ArrowFile f;
    ARROW_RETURN_NOT_OK(open_mapped(&f, path));
    for (size_t i = 0; i < f.batches.size(); i++) {
        std::shared_ptr<arrow::RecordBatch> batch;
        ARROW_RETURN_NOT_OK(read_arrow(&batch, f, i, nullptr, 0));
        if (batch->num_columns() != 1 || batch->column(0)->null_count() > 0)
            return Status::Invalid("expected one column of indices without nulls, found ",
                                   batch->schema()->ToString());
        ARROW_ASSIGN_OR_RAISE(auto cast, arrow::compute::Cast(batch->column(0), arrow::uint64()));
        auto numbers = cast.array_as<arrow::UInt64Array>();
        for (int64_t k = 0; k < numbers->length(); k++) {
            if (numbers->Value(k) >= rows)
                return Status::IndexError("index ", numbers->Value(k), " is beyond the ", rows,
                                          " rows of the data files");
            order->push_back(numbers->Value(k));
        }
    }
    return Status::OK();
}

bool arrow_open_indexed(ArrowReader **out, const char *path, const char *const *files, size_t n_files,
                        const char *const *indices, size_t n_indices, Error *err) {
    auto r = std::make_unique<ArrowReader>();
    *out = nullptr;
    r->path = path;
    r->indexed = true;
    for (size_t i = 0; i < n_files; i++)
        if (!guarded(err, files[i], [&] {
                ArrowFile f;
                ARROW_RETURN_NOT_OK(open_mapped(&f, files[i]));
                add_file(r.get(), std::move(f));
                return Status::OK();
            }))
            return false;
    uint64_t rows = r->ends.empty() ? 0 : (uint64_t)r->ends.back();
    for (size_t i = 0; i < n_indices; i++)
        if (!guarded(err, indices[i], [&] { return read_indices(&r->order, indices[i], rows); }))
            return false;
    *out = r.release();
    return true;
}

void arrow_close(ArrowReader *r) {
    delete r;
}

size_t arrow_batches(const ArrowReader *r) {
    return r->indexed ? (r->order.size() + GATHERED_ROWS - 1) / GATHERED_ROWS : r->batches.size();
}

size_t arrow_rows(const ArrowReader *r, size_t batch) {
    if (r->indexed) return std::min<size_t>(GATHERED_ROWS, r->order.size() - batch * GATHERED_ROWS);
    return (size_t)(r->ends[batch] - (batch ? r->ends[batch - 1] : 0));
}

static const Message &message_of(const ArrowReader *r, size_t batch) {
    return r->files[r->batches[batch].first].batches[r->batches[batch].second];
}

size_t arrow_bytes(const ArrowReader *r, size_t batch) {
    if (!r->indexed) return (size_t)message_of(r, batch).body;
    double bytes = 0; // of all rows: which ones a group holds says nothing yet about how many
    for (const ArrowFile &f : r->files) bytes += (double)f.size;
    return (size_t)(bytes / (double)r->ends.back() * (double)arrow_rows(r, batch));
}

// A mapped file that someone cuts short is a bus error where it is touched, so it is looked at before.
static Status check_size(const ArrowFile &f) {
    struct stat now;
    if (stat(f.path.c_str(), &now) != 0 || now.st_size >= f.size) return Status::OK();
    return Status::IOError(f.path, " had ", f.size, " bytes when it was opened and now has ", now.st_size,
                           "; copy it again and leave it alone during the run");
}

static Status read_place(std::shared_ptr<arrow::RecordBatch> *out, const ArrowReader *r, size_t batch,
                         const char *const *columns, size_t n_columns) {
    const ArrowFile &f = r->files[r->batches[batch].first];
    ARROW_RETURN_NOT_OK(check_size(f));
    return read_arrow(out, f, r->batches[batch].second, columns, n_columns);
}

// Rows [first, first + n) of the order, copied together from the batches they lie in.
static Status gather(std::shared_ptr<arrow::RecordBatch> *out, ArrowReader *r, size_t first, size_t n,
                     const char *const *columns, size_t n_columns) {
    arrow::RecordBatchVector rows;
    std::map<size_t, std::shared_ptr<arrow::RecordBatch>> used;
    std::vector<std::string> names(columns, columns + n_columns);
    if (names != r->kept_columns) r->kept.clear();
    r->kept_columns = names;
    for (size_t i = first; i < first + n; i++) {
        int64_t row = (int64_t)r->order[i];
        size_t at = (size_t)(std::upper_bound(r->ends.begin(), r->ends.end(), row) - r->ends.begin());
        auto [place, fresh] = used.try_emplace(at, r->kept[at]);
        if (!place->second) ARROW_RETURN_NOT_OK(read_place(&place->second, r, at, columns, n_columns));
        if (fresh && !message_of(r, at).compressed) r->kept[at] = place->second;
        rows.push_back(place->second->Slice(row - (at ? r->ends[at - 1] : 0), 1));
    }
    ARROW_ASSIGN_OR_RAISE(auto table, arrow::Table::FromRecordBatches(rows));
    return table->CombineChunksToBatch().Value(out);
}

bool arrow_read(RecordBatch **out, ArrowReader *r, size_t batch, const char *const *columns, size_t n_columns,
                Error *err) {
    *out = nullptr;
    if (batch >= arrow_batches(r))
        return error_set(err, "%s: record batch %zu asked for, it has %zu", r->path.c_str(), batch,
                         arrow_batches(r));
    const bool decoded = r->indexed || message_of(r, batch).compressed;
    return read_batch(out, r->path, ": record batch " + std::to_string(batch), decoded, err, [&](auto *rows) {
        if (!r->indexed) return read_place(rows, r, batch, columns, n_columns);
        return gather(rows, r, batch * GATHERED_ROWS, arrow_rows(r, batch), columns, n_columns);
    });
}

bool arrow_schema(RecordBatch **out, ArrowReader *r, const char *const *columns, size_t n_columns,
                  Error *err) {
    return read_batch(out, r->path, "", false, err, [&](auto *rows) {
        if (r->files.empty()) return Status::Invalid("it names no data file");
        return empty_batch(rows, *r->files[0].schema, columns, n_columns);
    });
}

// ---- writing ----

// Arrow's stream over base/file.h, so that Parquet files too appear whole or not at all.
class AtomicFile final : public arrow::io::OutputStream {
  public:
    FileWriter file = {};

    ~AtomicFile() override { file_abandon(&file); }
    Status Write(const void *data, int64_t n) override {
        if (fwrite(data, 1, (size_t)n, file.stream) != (size_t)n)
            return Status::IOError("writing ", n, " bytes failed: ", strerror(errno),
                                   "; free some space or choose another folder");
        written_ += n;
        return Status::OK();
    }
    arrow::Result<int64_t> Tell() const override { return written_; }
    Status Close() override {
        closed_ = true;
        return Status::OK();
    }
    bool closed() const override { return closed_; }

  private:
    int64_t written_ = 0;
    bool closed_ = false;
};

enum { IMAGES, TEXTS, SOURCE, RATINGS }; // columns of the schema; the four ratings begin at RATINGS
static const int64_t FineVisionTurn::*const ratings[] = {
    &FineVisionTurn::relevance, &FineVisionTurn::image_correspondence, &FineVisionTurn::visual_dependency,
    &FineVisionTurn::formatting};

static std::shared_ptr<arrow::Schema> finevision_schema() {
    auto list_of = [](std::shared_ptr<arrow::DataType> type) {
        return arrow::list(arrow::field("element", type));
    };
    auto image =
        arrow::struct_({arrow::field("bytes", arrow::binary()), arrow::field("path", arrow::utf8())});
    auto turn =
        arrow::struct_({arrow::field("user", arrow::utf8()), arrow::field("assistant", arrow::utf8())});
    auto rating = list_of(arrow::int64());
    return arrow::schema({arrow::field("images", list_of(image)), arrow::field("texts", list_of(turn)),
                          arrow::field("source", arrow::utf8()), arrow::field("relevance_ratings", rating),
                          arrow::field("image_correspondence_ratings", rating),
                          arrow::field("visual_dependency_ratings", rating),
                          arrow::field("formatting_ratings", rating)});
}

struct ParquetWriter {
    std::string path;
    size_t rows_per_group = 0, rows = 0; // rows: waiting in the builder
    std::shared_ptr<AtomicFile> sink;
    std::unique_ptr<arrow::RecordBatchBuilder> builder;
    std::unique_ptr<parquet::arrow::FileWriter> file;
};

static Status open_writer(ParquetWriter *w) {
    auto schema = finevision_schema();
    // Pictures gain nothing from a dictionary, and their least and greatest value would swell the footer.
    const std::string pictures = "images.list.element.bytes";
    auto properties = parquet::WriterProperties::Builder()
                          .memory_pool(memory())
                          ->compression(arrow::Compression::ZSTD)
                          ->disable_dictionary(pictures)
                          ->disable_statistics(pictures)
                          ->build();
    ARROW_ASSIGN_OR_RAISE(w->builder, arrow::RecordBatchBuilder::Make(schema, memory()));
    ARROW_ASSIGN_OR_RAISE(w->file, parquet::arrow::FileWriter::Open(*schema, memory(), w->sink, properties));
    return Status::OK();
}

bool parquet_create(ParquetWriter **out, const char *path, size_t rows_per_group, Error *err) {
    auto w = std::make_unique<ParquetWriter>();
    *out = nullptr;
    w->path = path;
    w->rows_per_group = std::max<size_t>(rows_per_group, 1);
    w->sink = std::make_shared<AtomicFile>();
    if (!file_create(&w->sink->file, path, err)) return false;
    if (!guarded(err, path, [&] { return open_writer(w.get()); })) return false;
    *out = w.release();
    return true;
}

static Status append_text(arrow::ArrayBuilder *builder, const char *text) {
    return text ? static_cast<arrow::StringBuilder *>(builder)->Append(text) : builder->AppendNull();
}

static Status append_row(ParquetWriter *w, const FineVisionRow *row) {
    auto *images = w->builder->GetFieldAs<arrow::ListBuilder>(IMAGES);
    auto *image = static_cast<arrow::StructBuilder *>(images->value_builder());
    ARROW_RETURN_NOT_OK(images->Append());
    for (size_t i = 0; i < row->n_images; i++) {
        const FineVisionImage &one = row->images[i];
        ARROW_RETURN_NOT_OK(image->Append());
        auto *bytes = static_cast<arrow::BinaryBuilder *>(image->field_builder(0));
        if (one.size > INT32_MAX) return Status::CapacityError("a picture of ", one.size, " bytes");
        ARROW_RETURN_NOT_OK(bytes->Append(static_cast<const uint8_t *>(one.bytes), (int32_t)one.size));
        ARROW_RETURN_NOT_OK(append_text(image->field_builder(1), one.path));
    }
    auto *texts = w->builder->GetFieldAs<arrow::ListBuilder>(TEXTS);
    auto *turn = static_cast<arrow::StructBuilder *>(texts->value_builder());
    ARROW_RETURN_NOT_OK(texts->Append());
    for (size_t i = 0; i < row->n_turns; i++) {
        ARROW_RETURN_NOT_OK(turn->Append());
        ARROW_RETURN_NOT_OK(append_text(turn->field_builder(0), row->turns[i].user));
        ARROW_RETURN_NOT_OK(append_text(turn->field_builder(1), row->turns[i].assistant));
    }
    ARROW_RETURN_NOT_OK(append_text(w->builder->GetField(SOURCE), row->source));
    for (size_t k = 0; k < std::size(ratings); k++) {
        auto *list = w->builder->GetFieldAs<arrow::ListBuilder>(RATINGS + (int)k);
        ARROW_RETURN_NOT_OK(list->Append());
        auto *values = static_cast<arrow::Int64Builder *>(list->value_builder());
        for (size_t i = 0; i < row->n_turns; i++)
            ARROW_RETURN_NOT_OK(values->Append(row->turns[i].*ratings[k]));
    }
    return Status::OK();
}

// Writes the waiting rows as one row group.
static Status flush_rows(ParquetWriter *w) {
    if (w->rows == 0) return Status::OK();
    w->rows = 0;
    ARROW_ASSIGN_OR_RAISE(auto batch, w->builder->Flush());
    ARROW_RETURN_NOT_OK(batch->ValidateFull()); // text that is not UTF-8 must not get into a file
    ARROW_ASSIGN_OR_RAISE(auto table, arrow::Table::FromRecordBatches({batch}));
    return w->file->WriteTable(*table, batch->num_rows());
}

bool parquet_write_row(ParquetWriter *w, const FineVisionRow *row, Error *err) {
    return guarded(err, w->path, [&] {
        ARROW_RETURN_NOT_OK(append_row(w, row));
        return ++w->rows >= w->rows_per_group ? flush_rows(w) : Status::OK();
    });
}

bool parquet_finish(ParquetWriter *w, Error *err) {
    bool ok = guarded(err, w->path, [&] {
        ARROW_RETURN_NOT_OK(flush_rows(w));
        return w->file->Close();
    });
    ok = ok && file_commit(&w->sink->file, err);
    parquet_abandon(w);
    return ok;
}

void parquet_abandon(ParquetWriter *w) {
    delete w;
}

const char *arrow_version(void) {
    return ARROW_VERSION_STRING;
}
