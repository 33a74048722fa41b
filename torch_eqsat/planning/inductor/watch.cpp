// Whether weights that are constants of a compiled graph stand as they stood (watching.py, which compiles this).
//
// A call of a compiled graph finds nothing of the weights in the cache: what this takes is waiting for memory. So all
// weights are looked at in steps, and each step asks for what the next one reads.

#include <Python.h>

#include <c10/core/StorageImpl.h>
#include <c10/core/TensorImpl.h>
#include <c10/core/UndefinedTensorImpl.h>

#include <cstring>
#include <exception>
#include <memory>
#include <vector>

namespace {

using c10::StorageImpl;
using c10::TensorImpl;
using c10::VariableVersion;

// The Python object of a torch.Tensor. Its own header (torch/csrc/autograd/python_variable.h) takes ten times as long
// to compile; `new_watch` compares what is read by this one with `Tensor._cdata`.
struct TensorObject {
  PyObject_HEAD
  c10::intrusive_ptr<TensorImpl, c10::UndefinedTensorImpl> tensor;
};

struct Decref {
  void operator()(PyObject* object) const { Py_XDECREF(object); }
};
using Owned = std::unique_ptr<PyObject, Decref>;

Owned own(PyObject* borrowed) {
  Py_XINCREF(borrowed);
  return Owned(borrowed);
}

const char* address_of(const TensorImpl& tensor) {
  const auto* start = static_cast<const char*>(tensor.unsafe_storage().data());
  return start == nullptr ? nullptr : start + tensor.storage_offset() * tensor.itemsize();
}

// A weight as it stood. No reference to the tensor is held: a strong one would keep it, and a weak one would keep it
// from being swapped (torch.utils.swap_tensors). Its counter of writes is held, and its storage weakly, which keeps
// none of its memory: so no other counter and no other storage has their addresses.
struct Weight {
  Owned table, key;  // it is owner.__dict__[table][key]
  Owned type;
  VariableVersion counter{VariableVersion::DISABLED};
  int64_t version = 0;
  bool strided = false;  // the rest is known of those alone whose values lie at one address
  c10::DispatchKeySet keys;
  caffe2::TypeMeta dtype;
  bool grad = false;
  std::vector<int64_t> sizes, strides;
  Owned storage;  // a weak reference
  const StorageImpl* storage_address = nullptr;
  const char* address = nullptr;
  const char* middle = nullptr;  // where its element in the middle lies, if this process can read it
  char element[16] = {};

  void learn(PyObject* object, PyObject* weak_storage) {
    TensorImpl& tensor = *reinterpret_cast<TensorObject*>(object)->tensor;
    type = own(reinterpret_cast<PyObject*>(Py_TYPE(object)));
    counter = tensor.version_counter();
    version = counter.enabled() ? counter.current_version() : 0;
    strided = weak_storage != Py_None;
    if (!strided) return;
    keys = tensor.key_set();
    dtype = tensor.dtype();
    grad = tensor.requires_grad();
    sizes = tensor.sizes().vec();
    strides = tensor.strides().vec();
    storage = own(weak_storage);
    storage_address = tensor.unsafe_storage().unsafeGetStorageImpl();
    address = address_of(tensor);
    if (address == nullptr || tensor.numel() == 0 || !tensor.device().is_cpu() || tensor.itemsize() > sizeof element)
      return;
    int64_t place = 0;
    for (size_t i = 0; i < sizes.size(); ++i) place += sizes[i] / 2 * strides[i];
    middle = address + place * static_cast<int64_t>(dtype.itemsize());
    std::memcpy(element, middle, dtype.itemsize());
  }

  // All but what lies behind further addresses.
  bool has_form_of(const TensorImpl& tensor) const {
    static_assert(sizeof(VariableVersion) == sizeof(void*), "the address of a counter is compared");
    if (std::memcmp(&counter, &tensor.version_counter(), sizeof counter) != 0) return false;
    return !strided ||
        (keys == tensor.key_set() && dtype == tensor.dtype() && grad == tensor.requires_grad() &&
         tensor.sizes() == c10::IntArrayRef(sizes) && tensor.strides() == c10::IntArrayRef(strides) &&
         tensor.unsafe_storage().unsafeGetStorageImpl() == storage_address);
  }

  bool has_values_of(const TensorImpl& tensor) const {
    if (counter.enabled() && counter.current_version() != version) return false;
    if (strided && address_of(tensor) != address) return false;
    return middle == nullptr || std::memcmp(middle, element, dtype.itemsize()) == 0;
  }
};

struct Owner {
  Owned reference;  // weak
  size_t end;  // of its weights, which follow those of the owner before
};

struct Watch {
  PyObject_HEAD
  std::vector<Owner>* owners;
  std::vector<Weight>* weights;
  std::vector<PyObject*>* found;  // borrowed, of one look
};

// The object that a weak reference stands for, or nothing.
Owned behind(PyObject* reference) {
#if PY_VERSION_HEX >= 0x030D0000
  PyObject* object = nullptr;
  PyWeakref_GetRef(reference, &object);
  return Owned(object);
#else
  PyObject* object = PyWeakref_GetObject(reference);
  return object == Py_None ? Owned() : own(object);
#endif
}

// Fill `found` with what lies at the places of all weights; false if nothing lies at one.
bool find(Watch& self) {
  size_t index = 0;
  for (const Owner& owner : *self.owners) {
    const Owned object = behind(owner.reference.get());
    if (object == nullptr) return false;
    const Owned attributes(PyObject_GenericGetDict(object.get(), nullptr));
    if (attributes == nullptr) return false;
    for (; index < owner.end; ++index) {
      const Weight& weight = (*self.weights)[index];
      PyObject* table = PyDict_GetItemWithError(attributes.get(), weight.table.get());
      if (table == nullptr || !PyDict_Check(table)) return false;
      PyObject* tensor = PyDict_GetItemWithError(table, weight.key.get());
      if (tensor == nullptr) return false;
      __builtin_prefetch(tensor);
      (*self.found)[index] = tensor;
    }
  }
  return true;
}

bool is_unchanged(Watch& self) {
  if (!find(self)) {
    PyErr_Clear();
    return false;
  }
  const std::vector<Weight>& weights = *self.weights;
  const auto tensor = [&](size_t i) -> const TensorImpl& {
    return *reinterpret_cast<TensorObject*>((*self.found)[i])->tensor;
  };
  for (size_t i = 0; i < weights.size(); ++i) {
    if (reinterpret_cast<PyObject*>(Py_TYPE((*self.found)[i])) != weights[i].type.get()) return false;
    const char* start = reinterpret_cast<const char*>(&tensor(i));
    for (size_t line = 0; line < sizeof(TensorImpl); line += 64) __builtin_prefetch(start + line);
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!weights[i].has_form_of(tensor(i))) return false;
    const void* counter;
    std::memcpy(&counter, &weights[i].counter, sizeof counter);
    __builtin_prefetch(counter);
    __builtin_prefetch(weights[i].storage_address);
    __builtin_prefetch(weights[i].middle);
  }
  for (size_t i = 0; i < weights.size(); ++i)
    if (!weights[i].has_values_of(tensor(i))) return false;
  return true;
}

PyObject* unchanged(PyObject* self, PyObject*) {
  try {
    return PyBool_FromLong(is_unchanged(*reinterpret_cast<Watch*>(self)));
  } catch (const std::exception&) {  // torch refuses to tell of a tensor: it is not as it was
    Py_RETURN_FALSE;
  }
}

void end(PyObject* object) {
  auto* self = reinterpret_cast<Watch*>(object);
  PyTypeObject* type = Py_TYPE(object);
  delete self->found;
  delete self->weights;
  delete self->owners;
  type->tp_free(object);
  Py_DECREF(type);
}

PyMethodDef methods[] = {
    {"unchanged", unchanged, METH_NOARGS, "Whether all weights are there, and stand as they stood."},
    {nullptr, nullptr, 0, nullptr}};
PyType_Slot slots[] = {
    {Py_tp_dealloc, reinterpret_cast<void*>(end)}, {Py_tp_methods, methods}, {0, nullptr}};
PyType_Spec spec = {
    "torch_eqsat.Watch", sizeof(Watch), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};

// Whether the tensor that this file reads of `object` is the one that torch tells of.
bool is_understood(PyObject* object) {
  const Owned told(PyObject_GetAttrString(object, "_cdata"));
  return told != nullptr && PyLong_AsVoidPtr(told.get()) == reinterpret_cast<TensorObject*>(object)->tensor.get();
}

PyObject* watch_of(PyObject* places) {
  static PyObject* type = PyType_FromSpec(&spec);
  if (type == nullptr) return nullptr;
  auto* self = reinterpret_cast<Watch*>(PyType_GenericAlloc(reinterpret_cast<PyTypeObject*>(type), 0));
  if (self == nullptr) return nullptr;
  const Owned result(reinterpret_cast<PyObject*>(self));
  self->owners = new std::vector<Owner>();
  self->weights = new std::vector<Weight>();
  self->found = new std::vector<PyObject*>();
  for (Py_ssize_t i = 0; i < PyList_Size(places); ++i) {
    PyObject *reference, *of_owner;
    if (!PyArg_ParseTuple(PyList_GetItem(places, i), "OO!", &reference, &PyList_Type, &of_owner)) return nullptr;
    for (Py_ssize_t j = 0; j < PyList_Size(of_owner); ++j) {
      PyObject *table, *key, *object, *storage;
      if (!PyArg_ParseTuple(PyList_GetItem(of_owner, j), "OOOO", &table, &key, &object, &storage)) return nullptr;
      if (!is_understood(object)) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "tensors of this torch are laid out otherwise");
        return nullptr;
      }
      Weight& weight = self->weights->emplace_back();
      weight.table = own(table);
      weight.key = own(key);
      weight.learn(object, storage);
    }
    self->owners->push_back({own(reference), self->weights->size()});
  }
  self->found->resize(self->weights->size());
  return Py_NewRef(result.get());
}

}  // namespace

// A watch of `places`: for each owner (a weak reference, [(table, key, tensor, a weak reference to its storage), ...]),
// where None stands for the storage of a tensor whose values do not lie at one address.
extern "C" PyObject* new_watch(PyObject* places) {
  try {
    return watch_of(places);
  } catch (const std::exception& error) {  // torch refuses to tell of a tensor
    PyErr_SetString(PyExc_RuntimeError, error.what());
    return nullptr;
  }
}
