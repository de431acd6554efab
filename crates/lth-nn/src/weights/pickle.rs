//! As much of Python's pickle as a PyTorch state dict uses.
//!
//! candle's own reader stops on nothing: a few hundred bytes can make it copy an object without end, overflow the stack
//! or index past a tuple's end. This one executes nothing, keeps all objects in one list (so that no nesting can exhaust
//! the stack, and no reference copies anything that grows with the file), and takes memory in proportion to the bytes
//! it reads.

use std::rc::Rc;

/// Objects of one pickle: a tensor takes about twelve, an optimiser's state for it as many again. An object can be had
/// for a single byte, and takes forty.
const MAX_OBJECTS: usize = 1 << 23;
/// Dimensions of a tensor, PyTorch's own limit. A tensor has its own copy of them.
const MAX_DIMS: usize = 64;

/// An object, by its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(usize);

/// What an object can be here.
#[derive(Clone, Debug)]
pub(super) enum Object {
    /// Anything that no state dict needs: None, floats, objects of unknown classes.
    Opaque,
    Int(i64),
    Text(Rc<str>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A function or class, as "module name".
    Class(Rc<str>),
    Storage(Rc<Storage>),
    Tensor(Box<TensorInfo>),
}

/// A run of numbers in the file that tensors look into.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    /// PyTorch's class, which stands for the element type.
    pub(super) class: Rc<str>,
    /// The name of its data.
    pub(super) key: Rc<str>,
}

/// A tensor: a view of a storage.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    pub(super) storage: Rc<Storage>,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

/// All objects of one pickle.
#[derive(Debug, Default)]
pub(super) struct Pickle {
    objects: Vec<Object>,
}

type Parsed<T> = Result<T, String>;

impl Pickle {
    pub(super) fn get(&self, id: Id) -> &Object {
        &self.objects[id.0]
    }

    pub(super) fn objects(&self) -> &[Object] {
        &self.objects
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        if let Object::Text(text) = self.get(id) { Some(text) } else { None }
    }

    fn integer(&self, id: Id) -> Option<i64> {
        if let Object::Int(value) = self.get(id) { Some(*value) } else { None }
    }

    fn size(&self, id: Id) -> Option<usize> {
        self.integer(id).and_then(|value| usize::try_from(value).ok())
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        let Object::Tuple(ids) = self.get(id) else { return None };
        if ids.len() > MAX_DIMS { None } else { ids.iter().map(|&id| self.size(id)).collect() }
    }
}

/// Parses one pickle from the start of `bytes`: all its objects, the one it stands for, and the number of bytes it takes.
pub(super) fn parse(bytes: &[u8]) -> Parsed<(Pickle, Id, usize)> {
    let mut machine =
        Machine { bytes, at: 0, stack: Vec::new(), marks: Vec::new(), memo: Vec::new(), pickle: Pickle::default() };
    loop {
        let op = machine.byte()?;
        if op == b'.' {
            let id = machine.pop()?;
            return Ok((machine.pickle, id, machine.at));
        }
        machine.step(op)?;
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: Vec<(u32, Id)>,
    pickle: Pickle,
}

impl<'a> Machine<'a> {
    /// Op-codes as in CPython's `pickletools`.
    fn step(&mut self, op: u8) -> Parsed<()> {
        match op {
            0x80 => self.take(1).map(|_| ()), // PROTO
            0x95 => self.take(8).map(|_| ()), // FRAME
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(|_| ()),                  // POP
            b'N' | 0x88 | 0x89 => self.push(Object::Opaque), // NONE, NEWTRUE, NEWFALSE
            b'K' => self.unsigned(1),                        // BININT1
            b'M' => self.unsigned(2),                        // BININT2
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Object::Int(value.into()))
            }
            0x8a => {
                let n = self.byte()?;
                let long = signed(self.take(n.into())?);
                self.push(long)
            }
            b'G' => {
                self.take(8)?; // BINFLOAT
                self.push(Object::Opaque)
            }
            b'X' => {
                let n = u32::from_le_bytes(self.array()?);
                self.text(n as usize)
            }
            b'U' | 0x8c => {
                let n = self.byte()?; // SHORT_BINSTRING, SHORT_BINUNICODE
                self.text(n.into())
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Object::Class(format!("{module} {name}").into()))
            }
            b')' => self.push(Object::Tuple(Vec::new())),
            b']' => self.push(Object::List(Vec::new())),
            b'}' => self.push(Object::Dict(Vec::new())),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Object::Tuple(items))
            }
            0x85..=0x87 => {
                let n = usize::from(op - 0x84); // TUPLE1 to TUPLE3
                let start = self.stack.len().checked_sub(n).ok_or("its stack is empty")?;
                let items = self.stack.split_off(start);
                self.push(Object::Tuple(items))
            }
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Object::List(items))
            }
            b'd' => {
                let items = pairs(&self.pop_to_mark()?)?;
                self.push(Object::Dict(items))
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(&[item])
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.extend_list(&items)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend_dict(&[key, value])
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.extend_dict(&items)
            }
            b'q' => {
                let key = self.byte()?;
                self.remember(key.into())
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.remember(key)
            }
            b'h' => {
                let key = self.byte()?;
                self.recall(key.into())
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key)
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id).ok_or("a reference to data is malformed")?;
                self.push(Object::Storage(Rc::new(storage)))
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.call(function, arguments)
            }
            0x81 => {
                self.pop()?; // NEWOBJ
                self.pop()?;
                self.push(Object::Opaque)
            }
            // BUILD: the state of an ordered dictionary is its `_metadata`, which says nothing of the tensors.
            b'b' => self.pop().map(|_| ()),
            _ => Err(format!("op-code {op:#04x} at byte {} is not one that a state dict uses", self.at - 1)),
        }
    }

    /// The result of a call. Only what makes tensors and dictionaries is known; everything else is opaque.
    fn call(&mut self, function: Id, arguments: Id) -> Parsed<()> {
        let Object::Class(name) = self.pickle.get(function) else { return self.push(Object::Opaque) };
        let Object::Tuple(arguments) = self.pickle.get(arguments) else {
            return Err(format!("{name} is called without a tuple"));
        };
        match &**name {
            "collections OrderedDict" | "collections defaultdict" => self.push(Object::Dict(Vec::new())),
            "torch._utils _rebuild_parameter" => {
                let id = *arguments.first().ok_or("a parameter without data")?;
                self.stack.push(id);
                Ok(())
            }
            "torch._utils _rebuild_tensor_v2" | "torch._utils _rebuild_tensor" => {
                let tensor = self.tensor(arguments).ok_or("a tensor's description is malformed")?;
                self.push(Object::Tensor(Box::new(tensor)))
            }
            _ => self.push(Object::Opaque),
        }
    }

    /// From (storage, offset, size, stride, …).
    fn tensor(&self, arguments: &[Id]) -> Option<TensorInfo> {
        let [storage, offset, shape, stride, ..] = *arguments else { return None };
        let Object::Storage(storage) = self.pickle.get(storage) else { return None };
        let (shape, stride) = (self.pickle.sizes(shape)?, self.pickle.sizes(stride)?);
        let offset = self.pickle.size(offset)?;
        (shape.len() == stride.len()).then(|| TensorInfo { storage: Rc::clone(storage), offset, shape, stride })
    }

    /// From ("storage", class, key, location, number of elements, …).
    fn storage(&self, id: Id) -> Option<Storage> {
        let Object::Tuple(parts) = self.pickle.get(id) else { return None };
        let [kind, class, key, _location, _n, ..] = parts[..] else { return None };
        if self.pickle.text(kind) != Some("storage") {
            return None;
        }
        // PyTorch before 0.4 could save a view of a storage as a sixth part.
        if parts.get(5).is_some_and(|&view| matches!(self.pickle.get(view), Object::Tuple(_))) {
            return None;
        }
        let Object::Class(class) = self.pickle.get(class) else { return None };
        let Object::Text(key) = self.pickle.get(key) else { return None };
        Some(Storage { class: Rc::clone(class), key: Rc::clone(key) })
    }

    fn push(&mut self, object: Object) -> Parsed<()> {
        if self.pickle.objects.len() >= MAX_OBJECTS {
            return Err(format!("it describes more than {MAX_OBJECTS} objects"));
        }
        self.stack.push(Id(self.pickle.objects.len()));
        self.pickle.objects.push(object);
        Ok(())
    }

    fn pop(&mut self) -> Parsed<Id> {
        self.stack.pop().ok_or_else(|| "its stack is empty".to_owned())
    }

    fn pop_to_mark(&mut self) -> Parsed<Vec<Id>> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&mut self) -> Parsed<Id> {
        self.stack.last().copied().ok_or_else(|| "its stack is empty".to_owned())
    }

    fn extend_list(&mut self, items: &[Id]) -> Parsed<()> {
        let top = self.top()?;
        match &mut self.pickle.objects[top.0] {
            Object::List(list) => list.extend_from_slice(items),
            Object::Opaque => {}
            _ => return Err("items are appended to something that is no list".to_owned()),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Id]) -> Parsed<()> {
        let top = self.top()?;
        match &mut self.pickle.objects[top.0] {
            Object::Dict(dict) => dict.extend(pairs(items)?),
            Object::Opaque => {}
            _ => return Err("items are set in something that is no dictionary".to_owned()),
        }
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Parsed<()> {
        let top = self.top()?;
        // Python numbers the memo from 0 upwards, so that this is nearly always a push.
        match self.memo.binary_search_by_key(&key, |&(key, _)| key) {
            Ok(place) => self.memo[place].1 = top,
            Err(place) if place == self.memo.len() => self.memo.push((key, top)),
            Err(_) => return Err("its memo is out of order".to_owned()),
        }
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Parsed<()> {
        let place = self.memo.binary_search_by_key(&key, |&(key, _)| key);
        let place = place.map_err(|_| format!("object {key} of its memo is missing"))?;
        self.stack.push(self.memo[place].1);
        Ok(())
    }

    fn unsigned(&mut self, n: usize) -> Parsed<()> {
        let value = self.take(n)?.iter().rev().fold(0, |value, &byte| value << 8 | i64::from(byte));
        self.push(Object::Int(value))
    }

    fn text(&mut self, n: usize) -> Parsed<()> {
        let text = std::str::from_utf8(self.take(n)?).map_err(|_| "a text is not UTF-8")?;
        self.push(Object::Text(text.into()))
    }

    fn line(&mut self) -> Parsed<&'a str> {
        let rest = &self.bytes[self.at..];
        let n = rest.iter().position(|&byte| byte == b'\n').ok_or("it ends inside a name")?;
        self.at += n + 1;
        std::str::from_utf8(&rest[..n]).map_err(|_| "a name is not UTF-8".to_owned())
    }

    fn byte(&mut self) -> Parsed<u8> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn take(&mut self, n: usize) -> Parsed<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| format!("it ends at byte {}, in the middle", self.bytes.len()))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }
}

fn pairs(items: &[Id]) -> Parsed<Vec<(Id, Id)>> {
    if !items.len().is_multiple_of(2) {
        return Err("a key has no value".to_owned());
    }
    Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// A little-endian integer of any length; one that needs more than 64 bits is of no use here.
fn signed(bytes: &[u8]) -> Object {
    if bytes.len() > 8 {
        return Object::Opaque;
    }
    let mut value = [if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 }; 8];
    value[..bytes.len()].copy_from_slice(bytes);
    Object::Int(i64::from_le_bytes(value))
}
